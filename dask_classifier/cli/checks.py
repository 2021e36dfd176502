"""Checks of the options of a command against each other, before anything else is imported."""

import datetime
import re

import click
from click.core import ParameterSource

from ..errors import UsageError
from .options import INSTANCE_OPTIONS, ONLY_WITHOUT_IMAGE


def typed(ctx: click.Context, names) -> list[str]:
    """Return those of the options that were given on the command line, as opposed to the configuration."""
    return [name for name in names if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE]


def check_cluster(ctx: click.Context, cluster: str, workers: int | None) -> None:
    """Raise UsageError for a cluster that does not exist, and for options that have no effect with it."""
    is_remote = cluster not in {"local", "inline"}
    if is_remote and cluster != "ec2" and "://" not in cluster and not _is_named_cluster(cluster):
        raise UsageError(
            f"{cluster!r} is not a cluster.",
            "Give local, inline, ec2, an address (tcp://host:8786), or the name of a cluster of `up`.",
        )
    has_workers = cluster in {"local", "ec2"} or (cluster == "inline" and workers == 1)
    if not has_workers and typed(ctx, ["workers"]):
        raise UsageError(f"--workers {workers} has no effect with the cluster {cluster}.", "Leave --workers out.")
    if "://" not in cluster and typed(ctx, ["worker_timeout"]):
        raise UsageError(f"--worker-timeout has no effect with the cluster {cluster}.", "Leave it out.")
    check_instance_options(ctx, cluster)
    if is_remote:
        _check_reach(ctx, cluster)


def check_instance_options(ctx: click.Context, cluster: str) -> None:
    """Raise UsageError for an option of instances where there are none."""
    if cluster != "ec2" and (unused := typed(ctx, INSTANCE_OPTIONS)):
        name = unused[0].replace("_", "-")
        raise UsageError(f"--{name} has no effect with the cluster {cluster}.", "Leave it out, or use --cluster ec2.")


def check_detach(ctx: click.Context, cluster: str) -> None:
    """Raise UsageError if a run cannot be detached, or an option has no effect if it is."""
    if not ctx.params["detach"]:
        return
    if cluster != "ec2":
        raise UsageError(f"--detach has no effect with the cluster {cluster}.", "Use --cluster ec2.")
    if ctx.params["log_json"]:
        raise UsageError("--log-json has no effect with --detach.", "Leave it out: `attach` shows the run.")


def check_alone(ctx: click.Context, name: str, option: str, allowed: set[str]) -> None:
    """Raise UsageError for options that have no effect beside one that is enough by itself."""
    others = {param.name: param.opts[0] for param in ctx.command.params if param.name not in {name, *allowed}}
    if given := typed(ctx, others):
        raise UsageError(f"{others[given[0]]} has no effect with {option}.", "Leave it out.")


def without_useless(ctx: click.Context, options: dict) -> dict:
    """Return options of instances, of which --image replaces those that are configured for its lack."""
    if not options["image"]:
        return options
    unused = set(ONLY_WITHOUT_IMAGE) & set(options) - set(typed(ctx, ONLY_WITHOUT_IMAGE))
    return options | dict.fromkeys(unused)


def _is_named_cluster(name: str) -> bool:
    """Return whether a cluster with this name was started with `up` on this computer."""
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
        return False
    from ..ec2 import named_clusters

    try:
        return named_clusters.path(name).exists()
    except OSError:  # in a folder of another user: reading it says so
        return True


def _check_reach(ctx: click.Context, cluster: str) -> None:
    """Raise UsageError if a remote cluster cannot reach the files: instances on EC2 cannot reach local ones."""
    output, inputs = ctx.params["output"], ctx.params["input"] or ()
    if not output:
        raise UsageError(
            "A remote cluster needs an output that all its workers can reach.", "Use --output s3://bucket/folder."
        )
    if "://" in cluster:
        return
    for what, url in [("output", output), *(("input", url) for url in inputs)]:
        if "://" not in url or url.startswith(("file:", "local:")):
            raise UsageError(
                f"The instances of the cluster {cluster} cannot reach the {what} {url}, which is on this computer.",
                f"Use --{what} s3://bucket/...",
            )


def with_filled_names(options: dict) -> dict:
    """Return options in which {date}, {hour} and other fields of --input and --output are filled with the time --at.

    Raise UsageError for a time that is not understood, or that no name depends on.
    """
    options, at = {name: value for name, value in options.items() if name != "at"}, options["at"]
    names = [*options["input"], options["output"] or ""]
    if any("{" in name for name in names):
        from ..runs import hours  # imports fsspec

        now = datetime.datetime.now(datetime.UTC)
        time = hours.parse_time(at, now) if at else now
        if any(map(hours.has_fields, names)):
            *files, output = (hours.filled(name, time) for name in names)
            return options | {"input": tuple(files), "output": output or None}
    if at:
        raise UsageError("--at has no effect with these names.", "Use {date} and {hour} in --input or --output.")
    return options
