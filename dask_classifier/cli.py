"""The command `dask-classify`: words to calls. What a command then does is in commands.py, which is imported
when needed.
"""

import os
import signal
import sys

import click
import dask.config
from click.core import ParameterSource

from . import __version__
from .errors import DaskClassifyError, Interrupted, UsageError
from .processes import start_forkserver

SETTINGS = {"context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100}}
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RunByDefault(click.Group):
    """A group in which options without a command are those of `run`, and whose defaults come from Dask's
    configuration.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `run` before a first option that is not the group's own."""
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if args and args[0].startswith("-") and args[0].split("=")[0] not in own:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def make_context(self, info_name, args, parent=None, **extra):
        """Read the configuration into the defaults of every command."""
        return super().make_context(info_name, args, parent, default_map=self.configured(), **extra)

    def configured(self) -> dict[str, dict[str, object]]:
        """The settings of Dask's configuration, for each command that has them. Raises UsageError for one
        that none has.

        Files have `dask-classifier: {output: ...}`; the environment has DASK_CLASSIFIER__OUTPUT, which Dask
        reads as `classifier.output`, and which comes before the files.
        """
        found = {**(dask.config.get("dask-classifier", None) or {}), **(dask.config.get("classifier", None) or {})}
        found = {name.replace("-", "_"): value for name, value in found.items()}
        found |= {name: [found[name]] for name in ("input", "with_file") if isinstance(found.get(name), str)}
        known = {name: {param.name for param in command.params} for name, command in self.commands.items()}
        unknown = sorted(set(found) - set().union(*known.values()))
        if unknown:
            raise UsageError(
                f"Dask's configuration has dask-classifier.{unknown[0]}, which is no option of dask-classify.",
                f"Look at the YAML files in {', '.join(map(str, dask.config.paths))}, "
                "and at DASK_CLASSIFIER__* in the environment.",
            )
        return {name: {key: value for key, value in found.items() if key in params} for name, params in known.items()}


@click.group(cls=RunByDefault, **SETTINGS, no_args_is_help=True)
@click.version_option(__version__)
def app():
    """Classify the rows of a big CSV file with a slow pandas function.

    \b
      dask-classify --rows 10k                           generated rows, to have a look
      dask-classify --input in.csv --classifier my.py:classify --output runs/today

    Options without a command are those of `run`. Each can also come from Dask's configuration: from
    `dask-classifier: {workers: 4}` in its YAML files, or from DASK_CLASSIFIER__WORKERS=4 in the environment.
    """


def plan_options(command):
    """The options that say what to do, common to `run` and `plan`."""
    options = [
        click.option("--rows", metavar="N", help="Classify N generated rows: 250k, 10M."),
        click.option("--input", metavar="URL", multiple=True, help="A CSV file or a glob, local or s3://; repeatable."),
        click.option("--output", metavar="URL", help="Folder of the run, local or s3://.  [default: runs/RUN-ID]"),
        click.option(
            "--classifier",
            default="blackbox",
            show_default=True,
            help="module:name, path/to/file.py:name, or the built-in blackbox.",
        ),
        click.option(
            "--with-file", metavar="FILE", multiple=True, help="A file that the classifier reads; repeatable."
        ),
        click.option(
            "--slowness", default="10", show_default=True, metavar="N", help="Of the black box: 10 is 3.5 ms a row."
        ),
        click.option("--seed", default=0, show_default=True, help="Of the generated rows."),
        click.option(
            "--delimiter", default=",", show_default=True, metavar="C", help="Of the input: one character, or \\t."
        ),
        click.option("--encoding", default="utf-8", show_default=True, help="Of the input."),
        click.option("--header-row/--no-header-row", default=True, help="Whether the input's first row has the names."),
        click.option(
            "--chunk-rows", default="100", show_default=True, metavar="N", help="Rows the classifier sees at a time."
        ),
        click.option(
            "--block-rows",
            default="auto",
            show_default=True,
            metavar="N",
            help="Rows of a task and of a part; auto: by measurement, about ten seconds of work.",
        ),
        click.option("--output-format", default="csv.gz", show_default=True, metavar="csv.gz|csv.zst|parquet"),
        click.option("--header/--no-header", default=False, help="Whether the first part begins with a header line."),
        click.option(
            "--max-bad",
            default="0",
            show_default=True,
            metavar="N|P%",
            help="Bad rows that are set aside before the run stops with exit code 3.",
        ),
        click.option("--block-timeout", metavar="TIME", help="End a process that takes longer for a block: 10m."),
        click.option("--resume", is_flag=True, help="Go on with the run in --output, if there is one."),
        click.option("--overwrite", is_flag=True, help="Give up the run in --output."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@app.command()
@plan_options
@click.option("--workers", type=click.IntRange(1), help="Classifier processes.  [default: one for each core]")
@click.option(
    "--cluster",
    default="local",
    show_default=True,
    metavar="local|inline|ADDRESS",
    help="Where to run; inline: without Dask.",
)
@click.option(
    "--dashboard-address", default="127.0.0.1:8787", show_default=True, help="Of the local cluster's dashboard."
)
@click.option("--profile", is_flag=True, help="Turn on Dask's statistical profiler.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest, without its parts, to standard output.")
@click.pass_context
def run(ctx, workers, cluster, dashboard_address, profile, quiet, as_json, **options):
    """Classify every row and leave a run: compressed parts, receipts, a manifest.

    Exit codes: 0 done; 1 failed, can be resumed; 2 wrong usage; 3 too many bad rows; 4 no cluster; 130
    interrupted, can be resumed.
    """
    _check_cluster(ctx, cluster, workers)
    options = _settle_source(ctx, options)
    if cluster == "local":
        start_forkserver()  # before the imports: it loads pandas at the same time
    from . import commands

    machines = {"cluster": cluster, "workers": workers, "dashboard_address": dashboard_address, "profile": profile}
    commands.run(options, machines, quiet=quiet, as_json=as_json)


def _check_cluster(ctx: click.Context, cluster: str, workers: int | None) -> None:
    if cluster == "ec2":
        raise UsageError(
            "This version cannot start machines on EC2.", "Use --cluster local, or the address of a Dask cluster."
        )
    if cluster not in {"local", "inline"} and "://" not in cluster:
        raise UsageError(f"{cluster!r} is no cluster.", "Give local, inline, or an address such as tcp://host:8786.")
    asked = workers is not None and ctx.get_parameter_source("workers") == ParameterSource.COMMANDLINE
    if asked and cluster != "local" and not (cluster == "inline" and workers == 1):
        raise UsageError(f"--workers {workers} says nothing about the cluster {cluster}.", "Leave --workers out.")
    if "://" in cluster and not ctx.params["output"]:
        raise UsageError(
            "A cluster elsewhere needs an output that all its workers reach.", "Give --output s3://bucket/folder."
        )


def _settle_source(ctx: click.Context, options: dict) -> dict:
    """What was typed about the source comes before what is configured about it."""
    typed = {name for name in ("rows", "input") if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE}
    dropped = {"rows": {"input": ()}, "input": {"rows": None}}[typed.pop()] if len(typed) == 1 else {}
    options = options | dropped
    return options | {"input": options["input"] or None}


@app.command()
@plan_options
@click.option("--workers", type=click.IntRange(1), help="Classifier processes.  [default: one for each core]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def plan(ctx, workers, as_json, **options):
    """Show rows, chunks and blocks of a run; touches nothing.

    Of an input, only the beginning is read: its number of rows is an estimate, marked "about".
    """
    from . import commands

    commands.plan(_settle_source(ctx, options), workers, as_json=as_json)


@app.command()
@click.option("--rows", required=True, metavar="N", help="How many: 250k, 10M.")
@click.option("--seed", default=0, show_default=True, help="Another seed gives other rows.")
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
@click.argument("file")
def generate(rows, seed, overwrite, file):
    """Write the rows that --rows classifies as a CSV file; - is standard output.

    A FILE that ends with .gz or .zst is compressed. It may be an s3:// URL.
    """
    from . import commands

    commands.generate(rows, seed, file, overwrite=overwrite)


@app.command()
@click.argument("run_url", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def verify(run_url, as_json):
    """Read every part of a run again and prove its manifest.

    Exit code 1 if it is wrong. The digest is of all rows, decompressed, in order, whatever the parts: equal
    runs have equal digests.
    """
    from . import commands

    commands.verify(run_url, as_json=as_json)


@app.command()
@click.argument("run_url", metavar="RUN")
@click.argument("file")
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
def fetch(run_url, file, overwrite):
    """Write all rows of a run, in order, to one FILE; - is standard output.

    The suffix says how: .gz and .zst are compressed, .parquet is Parquet, anything else is plain CSV.
    """
    from . import commands

    commands.fetch(run_url, file, overwrite=overwrite)


def main() -> None:
    """The entry point: runs the command, and turns failures into a sentence, a hint and an exit code."""
    for number in _INTERRUPTS:
        signal.signal(number, _interrupt)
    try:
        sys.exit(app(standalone_mode=False))
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(Interrupted.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read the output has gone
        sys.exit(1)
    except DaskClassifyError as error:
        click.secho(f"Error: {error.message}", fg="red", err=True)
        if error.hint:
            click.echo(f"Hint: {error.hint}", err=True)
        sys.exit(error.exit_code)


def _interrupt(number, frame):
    """One clean-up, which a second signal does not disturb."""
    for each in _INTERRUPTS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
