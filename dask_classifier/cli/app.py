"""The command `dask-classify`: words to calls. What a command then does is in commands.py, which is imported
when needed.
"""

import os
import re
import sys

import click
import dask.config
from click.core import ParameterSource

from .. import __version__
from ..config import configured
from ..engine.processes import start_forkserver
from ..errors import DaskClassifyError, Interrupted, UsageError
from . import interrupts
from .completion import CLUSTER, FILE, FOLDER, SAVED, OneOf, OptionsOfDefault
from .options import MACHINE_OPTIONS, Grouped, machine_options, plan_options

SETTINGS = {"context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100}}


class RunByDefault(OptionsOfDefault):
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
        """
        found = {name: _as_typed(name, value) for name, value in configured().items()}
        known = {name: {param.name for param in command.params} for name, command in self.commands.items()}
        unknown = sorted(set(found) - set().union(*known.values()))
        if unknown:
            raise UsageError(
                f"Dask's configuration has dask-classifier.{unknown[0]}, which is no option of dask-classify.",
                f"Look at the YAML files in {', '.join(map(str, dask.config.paths))}, "
                "and at DASK_CLASSIFIER__* in the environment.",
            )
        return {name: {key: value for key, value in found.items() if key in params} for name, params in known.items()}


def _as_typed(name: str, value: object) -> object:
    """A setting from a YAML file as the command line has it."""
    if name in {"input", "with_file", "tag"} and isinstance(value, str):
        return [value]
    if name == "tag" and isinstance(value, dict):
        return [f"{key}={text}" for key, text in value.items()]
    return ",".join(map(str, value)) if isinstance(value, list) and name not in {"input", "with_file", "tag"} else value


@click.group(cls=RunByDefault, **SETTINGS, no_args_is_help=True)
@click.version_option(__version__)
def app():
    """Classify the rows of a big CSV file with a slow pandas function.

    \b
      dask-classify --rows 10k
      dask-classify --input in.csv --classifier my.py:classify --output runs/1

    Options without a command are those of `run`. Each can also come from Dask's configuration: from
    `dask-classifier: {workers: 4}` in its YAML files, or from DASK_CLASSIFIER__WORKERS=4 in the environment.
    """


def workers_option(command):
    """How many workers."""
    text = "Processes; on EC2, machines.  [default: one for each core; on EC2, 1]"
    return click.option("--workers", type=click.IntRange(1), metavar="N", help=text)(command)


@app.command(cls=Grouped, short_help="Classify every row and leave a run.")
@plan_options
@workers_option
@click.option(
    "--cluster",
    default="local",
    show_default=True,
    type=CLUSTER,
    metavar="local|inline|ec2|NAME|ADDRESS",
    help="Where to run. inline: without Dask; ec2: on machines that are started for this run and cost money; "
    "NAME: a cluster of `up`.",
)
@click.option(
    "--dashboard-address",
    metavar="HOST:PORT",
    default="127.0.0.1:8787",
    show_default=True,
    help="Of the local cluster's dashboard.",
)
@click.option(
    "--worker-timeout", metavar="TIME", help="How long to wait for the first worker of ADDRESS.  [default: 5m]"
)
@click.option("--profile", is_flag=True, help="Turn on Dask's statistical profiler.")
@machine_options
@click.option("--traceback", is_flag=True, help="Print the whole traceback of a classifier that raises.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest, without its parts, to standard output.")
@click.pass_context
def run(ctx, workers, cluster, dashboard_address, worker_timeout, profile, traceback, quiet, as_json, **options):
    """Classify every row and leave a run: compressed parts, receipts, a manifest.

    Exit codes: 0 done; 1 failed, can be resumed; 2 wrong usage; 3 too many bad rows; 4 no cluster; 5 machines
    could not be ended; 130 interrupted, can be resumed.
    """
    machines = {name: options.pop(name) for name in MACHINE_OPTIONS}
    _check_cluster(ctx, cluster, workers)
    options = _settle_source(ctx, options)
    if cluster == "local":
        start_forkserver()  # before the imports: it loads pandas at the same time
    from . import run_commands

    machines |= {"cluster": cluster, "workers": workers, "dashboard_address": dashboard_address, "profile": profile}
    try:
        run_commands.run(options, machines, worker_timeout=worker_timeout, quiet=quiet, as_json=as_json)
    except DaskClassifyError as error:
        if traceback and error.details:
            click.echo(f"Traceback of the classifier (most recent call last):\n{error.details}\n", err=True)
        raise


def _typed(ctx: click.Context, names) -> list[str]:
    """Those of the options that were typed, as opposed to configured."""
    return [name for name in names if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE]


def _check_cluster(ctx: click.Context, cluster: str, workers: int | None) -> None:
    elsewhere = cluster not in {"local", "inline"}
    if elsewhere and cluster != "ec2" and "://" not in cluster and not _is_kept(cluster):
        raise UsageError(
            f"{cluster!r} is no cluster.",
            "Give local, inline, ec2, an address (tcp://host:8786), or the name of one that `up` started from here.",
        )
    has_workers = cluster in {"local", "ec2"} or (cluster == "inline" and workers == 1)
    if not has_workers and _typed(ctx, ["workers"]):
        raise UsageError(f"--workers {workers} says nothing about the cluster {cluster}.", "Leave --workers out.")
    if "://" not in cluster and _typed(ctx, ["worker_timeout"]):
        raise UsageError(f"--worker-timeout says nothing about the cluster {cluster}.", "Leave it out.")
    _check_machine_options(ctx, cluster)
    if elsewhere:
        _check_reach(ctx, cluster)


def _check_machine_options(ctx: click.Context, cluster: str) -> None:
    if cluster != "ec2" and (idle := _typed(ctx, MACHINE_OPTIONS)):
        name = idle[0].replace("_", "-")
        raise UsageError(f"--{name} says nothing about the cluster {cluster}.", "Leave it out, or give --cluster ec2.")


def _is_kept(name: str) -> bool:
    """Whether there is a cluster of `up` with this name."""
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
        return False
    from ..ec2 import named_clusters

    return named_clusters.path(name).exists()


def _check_reach(ctx: click.Context, cluster: str) -> None:
    """Machines elsewhere must reach the output; those on EC2 reach no file of this machine."""
    output, inputs = ctx.params["output"], ctx.params["input"] or ()
    if not output:
        raise UsageError(
            "A cluster elsewhere needs an output that all its workers reach.", "Give --output s3://bucket/folder."
        )
    if "://" in cluster:
        return
    for what, url in [("output", output), *(("input", url) for url in inputs)]:
        if "://" not in url or url.startswith(("file:", "local:")):
            raise UsageError(
                f"The machines of the cluster {cluster} cannot reach the {what} {url}, which is on this machine.",
                f"Give --{what} s3://bucket/...",
            )


def _settle_source(ctx: click.Context, options: dict) -> dict:
    """What was typed about the source comes before what is configured about it."""
    typed = _typed(ctx, ("rows", "input"))
    dropped = {"rows": {"input": ()}, "input": {"rows": None}}[typed[0]] if len(typed) == 1 else {}
    options = options | dropped
    return options | {"input": options["input"] or None}


@app.command(cls=Grouped, short_help="Show what a run would be; touch nothing.")
@plan_options
@workers_option
@click.option("--cluster", type=OneOf("local", "ec2"), default="local", show_default=True, help="Where it would run.")
@click.option("--measure", is_flag=True, help="Try the classifier here on the first rows, for time and cost.")
@machine_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def plan(ctx, workers, cluster, measure, as_json, **options):
    """Show rows, chunks and blocks of a run, machines and their price, time; starts and writes nothing.

    Of an input, only the beginning is read: its number of rows is an estimate, marked "about".
    """
    machines = {name: options.pop(name) for name in MACHINE_OPTIONS} | {"workers": workers, "cluster": cluster}
    _check_machine_options(ctx, cluster)
    from . import run_commands

    run_commands.plan(_settle_source(ctx, options), machines, measure=measure, as_json=as_json)


@app.command(short_help="Write the rows of --rows as a CSV file.")
@click.option("--rows", required=True, metavar="N", help="How many: 250k, 10M.")
@click.option("--seed", metavar="N", default=0, show_default=True, help="Another seed gives other rows.")
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
@click.argument("file", type=FILE)
def generate(rows, seed, overwrite, file):
    """Write the rows that --rows classifies as a CSV file; - is standard output.

    A FILE that ends with .gz or .zst is compressed. It may be an s3:// URL.
    """
    from . import run_commands

    run_commands.generate(rows, seed, file, overwrite=overwrite)


@app.command(short_help="Read every part again and prove the manifest.")
@click.argument("run_url", metavar="RUN", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def verify(run_url, as_json):
    """Read every part of a run again and prove its manifest.

    Exit code 1 if it is wrong. The digest is that of all rows as decompressed CSV, in order, so equal runs have
    equal digests, whatever their parts. Of Parquet parts it is that of the stored files.
    """
    from . import run_commands

    run_commands.verify(run_url, as_json=as_json)


@app.command(short_help="Show what a run was.")
@click.argument("run_url", metavar="RUN", type=FOLDER)
@click.option("--html", "file", type=FILE, metavar="FILE", help="Write the page to FILE instead of the run's folder.")
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def report(run_url, file, overwrite, as_json):
    """Show what a run was: rows, stages, workers, slow blocks, answers, bad rows.

    The page report.html, which each run leaves in its folder, has the same in pictures.
    """
    from . import run_commands

    run_commands.report(run_url, file, as_json=as_json, overwrite=overwrite)


@app.command(short_help="Write all rows of a run to one file.")
@click.argument("run_url", metavar="RUN", type=FOLDER)
@click.argument("file", type=FILE)
@click.option(
    "--header/--no-header",
    default=None,
    help="Whether CSV begins with the columns' names.  [default: in a file, yes; on standard output, as the run]",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
def fetch(run_url, file, header, overwrite, quiet):
    """Write all rows of a run, in order, to one FILE; - is standard output.

    The suffix sets the format: .gz and .zst are compressed CSV, .parquet is Parquet. Suffixes of other
    formats are refused; any other name is plain CSV.
    """
    from . import run_commands

    run_commands.fetch(run_url, file, header=header, overwrite=overwrite, quiet=quiet)


# --- machines ------------------------------------------------------------------------------------


def name_option(command):
    """The name of a cluster that stays."""
    return click.option(
        "--name", type=SAVED, metavar="NAME", required=True, help="Of the cluster: letters, digits, - and _."
    )(command)


@app.command(cls=Grouped, short_help="Start a cluster on EC2 that stays.")
@name_option
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Machines.  [default: 1]")
@click.option("--profile", is_flag=True, help="Turn on Dask's statistical profiler.")
@machine_options
@click.pass_context
def up(ctx, name, workers, profile, **options):
    """Start a cluster on EC2 that stays, for several runs.

    It costs money until `down` or its deadline. With the name of one that runs, change its number of workers.
    """
    from . import cluster_commands

    options |= {"workers": workers, "profile": profile}
    cluster_commands.up(name, options, typed=_typed(ctx, options))


@app.command(short_help="End a cluster of `up`.")
@name_option
def down(name):
    """End a cluster of `up`."""
    from . import cluster_commands

    cluster_commands.down(name)


@app.command(short_help="List machines on EC2, and what leaked.")
@click.option("--region", metavar="NAME", help="Of AWS.  [default: AWS's own configuration]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(region, as_json):
    """List the machines and security groups of dask-classify on EC2, and whether they leaked."""
    from . import cluster_commands

    cluster_commands.status(region, as_json=as_json)


@app.command(short_help="End what dead runs left on EC2.")
@click.option("--region", metavar="NAME", help="Of AWS.  [default: AWS's own configuration]")
@click.option("--cluster", "clusters", metavar="ID", multiple=True, help="Only this cluster; repeatable.")
@click.option("--older-than", metavar="TIME", help="Only clusters of which all machines are so old, leaked or not: 3h.")
@click.option("--all", "everything", is_flag=True, help="Also clusters that may still be at work.")
@click.option(
    "--output", metavar="URL", help="Instead of clusters: unfinished uploads of the run in this s3:// folder."
)
@click.option("--yes", is_flag=True, help="Do it, instead of listing what would be done.")
def reap(region, clusters, older_than, everything, output, yes):
    """End what dead runs left on EC2: instances, then security groups.

    Without --cluster, --older-than or --all: what is past its deadline, and what commands of this machine left
    that no longer run. Exit code 5 if something could not be ended.
    """
    from . import cluster_commands

    cluster_commands.reap(region, clusters, older_than, output, everything=everything, yes=yes)


@app.command(cls=Grouped, short_help="Look whether a run on EC2 can work.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Machines that a run would have.  [default: 1]")
@click.option("--output", metavar="URL", help="s3:// folder of a run; a small object is written there, and removed.")
@machine_options
@click.option("--policy", is_flag=True, help="Print the least rights that the caller and the machines need, and end.")
def doctor(workers, output, policy, **options):
    """Look whether this machine and this AWS account can do a run on EC2; starts nothing.

    Exit code 1 if a run would fail.
    """
    from . import cluster_commands

    cluster_commands.doctor(workers, output, options, policy=policy)


def main() -> None:
    """The entry point: runs the command, and turns failures into a sentence, a hint and an exit code."""
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read the output has gone
        sys.exit(1)
    except DaskClassifyError as error:
        click.secho(f"Error: {error.message}", fg="red", err=True)
        if error.hint:
            click.echo(f"Hint: {error.hint}", err=True)
        sys.exit(error.exit_code)
