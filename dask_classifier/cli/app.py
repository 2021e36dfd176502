"""The command `dask-classify`: its options and help texts, and the checks that need no other module.

What the commands do is in run_commands.py, cluster_commands.py and others, which are imported when needed.
"""

import errno
import os
import sys

import click
import dask.config
from click.core import ParameterSource

from .. import __version__
from ..config import configured
from ..engine.processes import start_forkserver
from ..errors import DaskClassifyError, Interrupted, UsageError
from . import checks, interrupts
from .completion import CLUSTER, FILE, FOLDER, OneOf, OptionsOfDefault
from .detached import attach, cancel, wait
from .hours import backfill, ledger
from .instances import doctor, down, image, reap, status, up
from .options import (
    INSTANCE_OPTIONS,
    NOT_CONFIGURABLE,
    Grouped,
    instance_options,
    limit_options,
    output_options,
    plan_options,
    sample_options,
    target_options,
)

_OF_OUTPUT = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # what goes wrong when something is printed
SETTINGS = {"context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100}}


class RunByDefault(OptionsOfDefault):
    """A group whose default command is `run`, and whose default values come from Dask's configuration."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `run` if the first argument is an option, unless it is one of the group's own."""
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if args and args[0].startswith("-") and args[0].split("=")[0] not in own:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def make_context(self, info_name, args, parent=None, **extra):
        """Use the configuration as the default values of every command."""
        return super().make_context(info_name, args, parent, default_map=self.configured(), **extra)

    def _option(self, name: str) -> str:
        """Return an option as it is written."""
        params = (param for command in self.commands.values() for param in command.params)
        return next(param.opts[0] for param in params if param.name == name)

    def configured(self) -> dict[str, dict[str, object]]:
        """Return the settings in Dask's configuration by command.

        Raises UsageError for a setting that is not an option of any command.
        """
        settings = {name: _as_typed(name, value) for name, value in configured().items() if name != "s3"}
        known = {
            name: {param.name for param in command.params} - NOT_CONFIGURABLE for name, command in self.commands.items()
        }
        unknown = sorted(set(settings) - set().union(*known.values()))
        if of_one_run := [name for name in unknown if name in NOT_CONFIGURABLE]:
            raise UsageError(
                f"Dask's configuration has dask-classifier.{of_one_run[0]}, which only the command line takes.",
                f"It belongs to a single run: use {self._option(of_one_run[0])}.",
            )
        if unknown:
            raise UsageError(
                f"Dask's configuration has dask-classifier.{unknown[0]}, which is not an option of dask-classify.",
                f"Check the YAML files in {', '.join(map(str, dask.config.paths))}, "
                "and DASK_CLASSIFIER__* in the environment.",
            )
        return {
            name: {key: value for key, value in settings.items() if key in params} for name, params in known.items()
        }


def _as_typed(name: str, value: object) -> object:
    """Return a setting from a YAML file in the form that it has on the command line."""
    if name in {"input", "with_file", "tag"} and isinstance(value, str):
        return [value]
    if name == "tag" and isinstance(value, dict):
        return [f"{key}={text}" for key, text in value.items()]
    return ",".join(map(str, value)) if isinstance(value, list) and name not in {"input", "with_file", "tag"} else value


@click.group(cls=RunByDefault, **SETTINGS, no_args_is_help=True)
@click.version_option(__version__)
def app():
    """Run a slow pandas function over every row of a large file.

    \b
      dask-classify --rows 10k
      dask-classify --input in.csv --classifier my.py:classify --output runs/1

    Without a command, the options are those of `run`. Most can also come from Dask's configuration, as
    `dask-classifier: {workers: 4}` in its YAML files or DASK_CLASSIFIER__WORKERS=4 in the environment.
    """


for command in (ledger, backfill, attach, wait, cancel, up, down, status, reap, doctor, image):
    app.add_command(command)


def workers_option(command):
    """Add the number of workers."""
    text = "Number of processes, or of instances on EC2.  [default: one per core; on EC2, 1]"
    return click.option("--workers", type=click.IntRange(1), metavar="N", help=text)(command)


@app.command(cls=Grouped, short_help="Classify every row, and write the results to a folder.")
@plan_options
@workers_option
@click.option(
    "--cluster",
    default="local",
    show_default=True,
    type=CLUSTER,
    metavar="local|inline|ec2|NAME|ADDRESS",
    help="Where to run. local: on all cores; inline: in this process, without Dask; ec2: on instances launched for "
    "this run, which cost money; NAME: a cluster of `up`; ADDRESS: a Dask cluster.",
)
@click.option(
    "--dashboard-address",
    metavar="HOST:PORT",
    default="127.0.0.1:8787",
    show_default=True,
    help="Address of the local cluster's dashboard.",
)
@click.option(
    "--worker-timeout", metavar="TIME", help="Time limit for the first worker of ADDRESS to join.  [default: 5m]"
)
@click.option("--profile", is_flag=True, help="Turn on Dask's statistical profiler.")
@click.option(
    "--detach",
    is_flag=True,
    help="Return once the run has begun on EC2, where it goes on without this computer: see `attach` and `cancel`.",
)
@target_options
@limit_options
@instance_options
@output_options
@click.pass_context
def run(ctx, workers, cluster, dashboard_address, worker_timeout, profile, detach, **options):
    """Classify every row, and write compressed parts, receipts and a manifest to a folder.

    With --finish-by or --finish-in, and without --workers, the size of the cluster is chosen by an estimate.

    Exit codes: 0 complete; 1 failed; 2 wrong usage; 3 too many bad rows; 4 cluster not available; 5 EC2 instances
    not terminated; 6 stopped by --max-time or --budget; 7 complete but partial (--partial); 130 interrupted.
    After 1, 3, 4, 6, 7 and 130, --resume continues the run; after 5, `reap --yes` comes first.
    """
    cluster_options = checks.without_useless(ctx, {name: options.pop(name) for name in INSTANCE_OPTIONS})
    checks.check_cluster(ctx, cluster, workers)
    checks.check_detach(ctx, cluster)
    options = _settle_source(ctx, options)
    if cluster == "local":
        start_forkserver()  # before the imports: it loads pandas at the same time
    from . import choosing, run_commands

    traceback, output = options.pop("traceback"), {name: options.pop(name) for name in ("quiet", "as_json", "log_json")}
    wishes = choosing.Wishes(**{name: options.pop(name) for name in choosing.Wishes.__dataclass_fields__})
    cluster_options |= {
        "cluster": cluster,
        "workers": workers,
        "dashboard_address": dashboard_address,
        "profile": profile,
    }
    is_free = ctx.get_parameter_source("cluster") == ParameterSource.DEFAULT
    try:
        run_commands.run(
            options, cluster_options, wishes, free=is_free, worker_timeout=worker_timeout, detach=detach, **output
        )
    except DaskClassifyError as error:
        if traceback and error.details:
            click.echo(f"Traceback of the classifier (most recent call last):\n{error.details}\n", err=True)
        raise


def _settle_source(ctx: click.Context, options: dict) -> dict:
    """Let a source on the command line take precedence over a configured one."""
    typed = checks.typed(ctx, ("rows", "input"))
    dropped = {"rows": {"input": ()}, "input": {"rows": None}}[typed[0]] if len(typed) == 1 else {}
    options = checks.with_filled_names(options | dropped)
    return options | {"input": options["input"] or None}


@app.command(cls=Grouped, short_help="Estimate the time and cost of a run.")
@plan_options
@workers_option
@click.option(
    "--cluster",
    type=OneOf("local", "ec2"),
    metavar="local|ec2",
    default="local",
    show_default=True,
    help="Where to run; with ec2, AWS is asked for instance types and prices.",
)
@target_options
@sample_options
@instance_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def plan(ctx, workers, cluster, sample, history, replayed, finish_by, finish_in, budget, as_json, **options):
    """Estimate the time and cost of a run, here and on EC2, without launching or writing anything.

    The classifier is tried here on rows from all over the input. With --sample 0, only the beginning of an input is
    read, so its number of rows is an estimate, marked "about".
    """
    instances = checks.without_useless(ctx, {name: options.pop(name) for name in INSTANCE_OPTIONS})
    cluster_options = instances | {"workers": workers, "cluster": cluster}
    checks.check_instance_options(ctx, cluster)
    if replayed:
        checks.check_alone(ctx, "replayed", "--from", {"as_json"})
    from . import run_commands

    target = {"finish_by": finish_by, "finish_in": finish_in, "budget": budget}
    run_commands.plan(
        _settle_source(ctx, options),
        cluster_options,
        target=target,
        sample=sample,
        history=history,
        replayed=replayed,
        as_json=as_json,
    )


@app.command(short_help="Write generated rows to a CSV file.")
@click.option("--rows", required=True, metavar="N", help="Number of rows: 250k, 10M.")
@click.option("--seed", metavar="N", default=0, show_default=True, help="Seed: different seeds give different rows.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@click.argument("file", type=FILE)
def generate(rows, seed, overwrite, file):
    """Write the rows that `run --rows` classifies to a CSV file.

    FILE is compressed if its name ends with .gz or .zst. It may be an s3:// URL, or - for standard output.
    """
    from . import run_commands

    run_commands.generate(rows, seed, file, overwrite=overwrite)


@app.command(short_help="Check every part of a run against its manifest.")
@click.argument("run_url", metavar="RUN", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(run_url, as_json):
    """Read every part of a run, and check it against the manifest.

    The exit code is 1 if they differ. The printed digest is computed from all rows in order, as decompressed CSV, so
    equal runs have equal digests regardless of their parts; or, for Parquet parts, from the stored files.
    """
    from . import run_commands

    run_commands.verify(run_url, as_json=as_json)


@app.command(short_help="Show the figures of a run.")
@click.argument("run_url", metavar="RUN", type=FOLDER)
@click.option("--html", "file", type=FILE, metavar="FILE", help="Write the page to FILE, not to the run's folder.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def report(run_url, file, overwrite, as_json):
    """Show the figures of a run: rows, stages, workers, slow blocks, values, bad rows.

    The page report.html in the run's folder shows the same as charts.
    """
    from . import run_commands

    run_commands.report(run_url, file, as_json=as_json, overwrite=overwrite)


@app.command(short_help="Write all rows of a run to one file.")
@click.argument("run_url", metavar="RUN", type=FOLDER)
@click.argument("file", type=FILE)
@click.option(
    "--header/--no-header",
    default=None,
    help="Whether CSV begins with the column names.  [default: yes in a file; on standard output, as in the run]",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@click.option("--quiet", "-q", is_flag=True, help="Print only errors.")
def fetch(run_url, file, header, overwrite, quiet):
    """Write all rows of a run, in order, to one FILE, or to standard output if it is -.

    The suffix sets the format: .gz and .zst are compressed CSV, .parquet is Parquet, .jsonl.gz is JSON Lines, and
    suffixes of other formats, such as .json, are rejected. With any other name, FILE is plain CSV.
    """
    from . import run_commands

    run_commands.fetch(run_url, file, header=header, overwrite=overwrite, quiet=quiet)


@app.command(short_help="Write the rows of a run to one file, by workers.")
@click.argument("run_url", metavar="RUN", type=FOLDER)
@click.argument("file", metavar="URL", type=FILE)
@click.option(
    "--header/--no-header", default=None, help="Whether CSV begins with the column names.  [default: as in the run]"
)
@click.option(
    "--cluster",
    default="local",
    show_default=True,
    type=CLUSTER,
    metavar="local|inline|NAME|ADDRESS",
    help="Where to do it, as in `run`; instances are not launched for it.",
)
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Number of local processes.  [default: all cores]")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@click.option("--quiet", "-q", is_flag=True, help="Print only errors.")
def publish(run_url, file, header, cluster, workers, overwrite, quiet):
    """Write all rows of a run, in order, to one file in a folder or in S3; the rows do not pass through this computer.

    The file appears when it is complete. For another format than that of the parts, one worker converts them all.
    """
    from . import run_commands

    run_commands.publish(
        run_url, file, header=header, cluster=cluster, workers=workers, overwrite=overwrite, quiet=quiet
    )


def main() -> None:
    """Run the command, and turn failures into a message, a hint and an exit code."""
    interrupts.listen()
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of the output has closed it
        sys.exit(1)
    except DaskClassifyError as error:
        click.secho(f"Error: {error.message}", fg="red", err=True)
        if error.hint:
            click.echo(f"Hint: {error.hint}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in _OF_OUTPUT:  # a defect
            raise
        click.secho(f"Error: Cannot write the output: {error.strerror or error}.", fg="red", err=True)
        sys.exit(1)
