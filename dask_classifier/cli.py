"""The command `dask-classify`: words to calls."""

import json
import os
import signal
import sys
import time
from contextlib import contextmanager

import click
import dask.config
from click.core import ParameterSource
from dask.system import CPU_COUNT

from . import __version__, generate, storage
from .cluster import LocalCluster
from .display import Display, summary
from .errors import DaskClassifyError, Interrupted, OutputExists, UsageError
from .parts import FORMATS, gzip_member, zstd_frame
from .pipeline import run as run_plan
from .planning import Plan, outline
from .planning import plan as make_plan
from .result import Result, open_run
from .units import format_bytes, parse_count

SETTINGS = {"context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100}}

_FIRST_ROWS = 3


class RunByDefault(click.Group):
    """A group in which options without a command are those of `run`, and whose defaults come from Dask's configuration."""

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
        """The settings of Dask's configuration, for each command that has them. Raises UsageError for one that none has.

        Files have `dask-classifier: {output: ...}`; the environment has DASK_CLASSIFIER__OUTPUT, which Dask reads as
        `classifier.output`, and which comes before the files.
        """
        found = {**(dask.config.get("dask-classifier", None) or {}), **(dask.config.get("classifier", None) or {})}
        found = {name.replace("-", "_"): value for name, value in found.items()}
        known = {name: {param.name for param in command.params} for name, command in self.commands.items()}
        unknown = sorted(set(found) - set().union(*known.values()))
        if unknown:
            raise UsageError(
                f"Dask's configuration has dask-classifier.{unknown[0]}, which is no option of dask-classify.",
                f"Look at the YAML files in {', '.join(map(str, dask.config.paths))}, and at DASK_CLASSIFIER__* in the environment.",
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
        click.option("--output-format", default="csv.gz", show_default=True, type=click.Choice(FORMATS)),
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

    Exit codes: 0 done; 1 failed, can be resumed; 2 wrong usage; 3 too many bad rows; 4 no cluster; 130 interrupted, can be
    resumed.
    """
    started = time.time()
    _check_cluster(ctx, cluster, workers)
    plan = _plan(ctx, options)
    display = Display(quiet=quiet)
    _announce(ctx, plan, cluster, workers, display)
    with (
        _resumable(plan, display),
        _machines(cluster, workers, dashboard_address, profile) as machines,
        display.shown(),
    ):
        result = run_plan(plan, machines, progress=display)
    done_before = _rows_of_resumed_parts(result, started)
    display.console.print(summary(result, started, done_before))
    display.say(f"The result is in {_short(result.output)}. It begins:")
    display.lines(result.head(_FIRST_ROWS).to_csv(lineterminator="\n"))
    if result.bad_rows:
        display.warn(f"{result.bad_rows:,} bad rows were set aside in {_short(result.output)}/quarantine.")
    if as_json:
        click.echo(json.dumps({"output": result.output} | {k: v for k, v in result.manifest.items() if k != "parts"}))


def _rows_of_resumed_parts(result: Result, started: float) -> int:
    return sum(receipt.rows + receipt.bad_rows for receipt in result.receipts if receipt.started < started)


def _short(output: str) -> str:
    """A local path as seen from here, when that is shorter."""
    if "://" in output:
        return output
    relative = os.path.relpath(output)
    return relative if len(relative) < len(output) else output


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


def _plan(ctx: click.Context, options: dict) -> Plan:
    """The plan; what was typed about the source comes before what is configured about it."""
    typed = {name for name in ("rows", "input") if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE}
    if typed == {"rows"}:
        options["input"] = ()
    if typed == {"input"}:
        options["rows"] = None
    return make_plan(**options | {"input": options["input"] or None})


def _announce(ctx: click.Context, plan: Plan, cluster: str, workers: int | None, display: Display) -> None:
    """Say what will be done, before it is."""
    source = f"{len(plan.source.files):,} files" if len(plan.source.files) > 1 else plan.source.files[0].url
    what = f"{plan.source.files[0].rows:,} generated rows" if source == "generated" else source
    display.say(f"Classifying {what} with {plan.package.reference}, into {_short(plan.output)}")
    if not plan.source.layout.columns:
        display.warn("the source is empty: there is nothing to classify.")
    if cluster == "local" and workers and workers > CPU_COUNT:
        display.warn(f"{workers} processes share {CPU_COUNT} cores; more than {CPU_COUNT} will not make it faster.")


@contextmanager
def _machines(cluster: str, workers: int | None, dashboard_address: str, profile: bool):
    if cluster == "local":
        with LocalCluster(workers, dashboard_address=dashboard_address, profile=profile) as machines:
            yield machines
    else:
        yield cluster


@contextmanager
def _resumable(plan: Plan, display: Display):
    """Turn Ctrl-C and SIGTERM into one sentence, once everything is closed."""
    try:
        yield
    except KeyboardInterrupt:
        now = display.snapshot()
        raise Interrupted(
            f"Interrupted: {now.blocks_done:,} of {now.blocks:,} blocks are done and kept.",
            f"Go on with the same command and --output {_short(plan.output)} --resume.",
        ) from None
    except OutputExists:
        raise
    except DaskClassifyError as error:
        if display.snapshot().blocks_done and error.exit_code != UsageError.exit_code:
            display.say(f"{display.snapshot().blocks_done:,} finished blocks are kept in {_short(plan.output)}.")
        raise


@app.command()
@plan_options
@click.option("--workers", type=click.IntRange(1), help="Classifier processes.  [default: one for each core]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def plan(ctx, workers, as_json, **options):
    """Show rows, chunks and blocks of a run; touches nothing.

    Of an input, only the beginning is read: its number of rows is an estimate, marked "about".
    """
    found = outline(_plan(ctx, options), workers or CPU_COUNT)
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, value in found.items():
        click.echo(
            f"{name.replace('_', ' '):<12} {value:,}"
            if isinstance(value, int)
            else f"{name.replace('_', ' '):<12} {value}"
        )


@app.command("generate")
@click.option("--rows", required=True, metavar="N", help="How many: 250k, 10M.")
@click.option("--seed", default=0, show_default=True, help="Another seed gives other rows.")
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
@click.argument("file")
def generate_file(rows, seed, overwrite, file):
    """Write the rows that --rows classifies as a CSV file; - is standard output.

    A FILE that ends with .gz or .zst is compressed. It may be an s3:// URL.
    """
    stream = generate.csv_stream(seed, parse_count(rows, "number of rows"))
    pack = gzip_member if file.endswith(".gz") else zstd_frame if file.endswith(".zst") else bytes
    if file == "-":
        for text in stream:
            sys.stdout.buffer.write(text)
        return
    if storage.exists(file) and not overwrite:
        raise OutputExists(f"{file} exists.", "Choose another file, or --overwrite.")
    with storage.open_whole(file) as out:
        for text in stream:
            out.write(pack(text))


@app.command()
@click.argument("run_url", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def verify(run_url, as_json):
    """Read every part of a run again and prove its manifest; exit code 1 if it is wrong.

    The digest is of all rows, decompressed, in order, whatever the parts: equal runs have equal digests.
    """
    found = open_run(run_url).verify()
    if as_json:
        click.echo(json.dumps(vars(found)))
        return
    click.echo(
        f"{found.rows:,} rows and {found.bad_rows:,} bad rows in {found.parts:,} parts, {format_bytes(found.bytes)}: all there"
    )
    click.echo(f"sha256 {found.sha256}")


@app.command()
@click.argument("run_url", metavar="RUN")
@click.argument("file")
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
def fetch(run_url, file, overwrite):
    """Write all rows of a run, in order, to one FILE; - is standard output.

    The suffix says how: .gz and .zst are compressed, .parquet is Parquet, anything else is plain CSV.
    """
    result = open_run(run_url)
    if file == "-":
        result.write_to(sys.stdout.buffer)
        return
    if storage.exists(file) and not overwrite:
        raise OutputExists(f"{file} exists.", "Choose another file, or --overwrite.")
    click.echo(f"{file}: {result.rows:,} rows, {format_bytes(result.fetch(file))}", err=True)


def main() -> None:
    """The entry point: runs the command, and turns failures into a sentence, a hint and an exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
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
    raise KeyboardInterrupt
