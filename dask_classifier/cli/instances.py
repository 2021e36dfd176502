"""The commands for EC2: up, down, status, reap, doctor, image."""

import click

from . import checks
from .completion import NAMED_CLUSTER
from .options import Grouped, instance_options, region_option, requirement_options


def name_option(command):
    """Add the name of a cluster of `up`."""
    text = "Name of the cluster: letters, digits, - and _."
    return click.option("--name", type=NAMED_CLUSTER, metavar="NAME", required=True, help=text)(command)


@click.command(cls=Grouped, short_help="Start a named cluster on EC2, or resize it.")
@name_option
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Number of workers (instances).  [default: 1]")
@click.option("--profile", is_flag=True, help="Turn on Dask's statistical profiler.")
@requirement_options
@instance_options
@click.pass_context
def up(ctx, name, workers, profile, **options):
    """Start a cluster on EC2 that keeps running, for several runs; or change the number of its workers.

    It costs money until `down` or its deadline.
    """
    from . import cluster_commands

    options = checks.without_useless(ctx, options) | {"workers": workers, "profile": profile}
    cluster_commands.up(name, options, typed=checks.typed(ctx, options))


@click.command(short_help="Terminate a cluster of `up`.")
@name_option
def down(name):
    """Terminate a cluster of `up`."""
    from . import cluster_commands

    cluster_commands.down(name)


@click.command(short_help="List instances on EC2, and whether they leaked.")
@region_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(region, as_json):
    """List the instances and security groups of dask-classify on EC2, and whether they leaked."""
    from . import cluster_commands

    cluster_commands.status(region, as_json=as_json)


@click.command(short_help="Terminate what crashed runs left on EC2.")
@region_option
@click.option("--cluster", "clusters", metavar="ID", multiple=True, help="Select this cluster; repeatable.")
@click.option("--older-than", metavar="TIME", help="Select clusters in which everything is at least this old: 3h.")
@click.option("--all", "everything", is_flag=True, help="Select all clusters, even if they may still be in use.")
@click.option(
    "--output", metavar="URL", help="Abort unfinished uploads of the run in this s3:// folder, instead of clusters."
)
@click.option("--yes", is_flag=True, help="Terminate, instead of listing what would be terminated.")
def reap(region, clusters, older_than, everything, output, yes):
    """Terminate instances and delete security groups left on EC2 by crashed runs.

    By default, select clusters that are past their deadline, and those started on this computer by commands that are
    no longer running. The exit code is 5 if something could not be terminated.
    """
    from . import cluster_commands

    cluster_commands.reap(region, clusters, older_than, output, everything=everything, yes=yes)


@click.command(cls=Grouped, short_help="Check that a run on EC2 would succeed.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Number of workers of the run.  [default: 1]")
@click.option("--output", metavar="URL", help="s3:// folder of the run; a small object is written to it and deleted.")
@requirement_options
@instance_options
@click.option("--policy", "shown", flag_value="policy", help="Print the permissions that you and the instances need.")
@click.option("--template", "shown", flag_value="template", help="Print them in a CloudFormation template.")
@click.option("--detach", is_flag=True, help="With --policy or --template: print also what `run --detach` needs.")
@click.pass_context
def doctor(ctx, workers, output, shown, detach, **options):
    """Check account, permissions, quota and packages for a run on EC2, without launching anything.

    The exit code is 1 if the run would fail.
    """
    from . import cluster_commands

    cluster_commands.doctor(workers, output, checks.without_useless(ctx, options), shown, detach=detach)


@click.command(short_help="Build or push a container image with what is installed here.")
@click.argument("action", type=click.Choice(["build", "push"]), metavar="build|push")
@click.argument("name", metavar="NAME:TAG")
@requirement_options
@click.option("--base-image", metavar="NAME:TAG", help="Image of Python to begin with.  [default: the official one]")
@click.option("--index-url", metavar="URL", help="Package index.  [default: that of pip's configuration]")
@click.option(
    "--architecture",
    type=click.Choice(["x86_64", "arm64"]),
    default="x86_64",
    show_default=True,
    help="Processors of the instances.",
)
@click.option("--tool", metavar="COMMAND", help="docker, podman or buildah.  [default: the first that is installed]")
def image(action, name, requirements, with_env, base_image, index_url, architecture, tool):
    """Build a container image with the packages that are installed here, for --image, or push it to a registry.

    Instances with --image start faster than those that install the packages themselves.
    """
    from . import image_commands

    if action == "push":
        image_commands.push(name, tool)
        return
    image_commands.build(
        name, tool, requirements, with_env=with_env, base_image=base_image, index_url=index_url,
        architecture=architecture,
    )  # fmt: skip
