"""The commands for runs that were detached: attach, wait, cancel."""

import click

from .completion import FOLDER


@click.command(short_help="Show the progress of a detached run, and its result.")
@click.argument("run_url", metavar="RUN", type=FOLDER)
@click.option("--quiet", "-q", is_flag=True, help="Print only errors.")
def attach(run_url, quiet):
    """Show the progress of a run that was started with --detach, until it is over, and then its result.

    Ctrl-C ends only this command. The exit code is that of the run, or 4 if the instance that drives it was lost.
    """
    from . import detached_commands

    detached_commands.attach(run_url, quiet=quiet)


@click.command(short_help="Wait until a detached run is over.")
@click.argument("run_url", metavar="RUN", type=FOLDER)
def wait(run_url):
    """Wait until a run that was started with --detach is over, and exit with its exit code.

    Only errors are printed, as by `attach --quiet`.
    """
    from . import detached_commands

    detached_commands.attach(run_url, quiet=True)


@click.command(short_help="Cancel a detached run: terminate its instances.")
@click.argument("run_url", metavar="RUN", type=FOLDER)
def cancel(run_url):
    """Terminate the instances of a run that was started with --detach. Finished blocks are kept.

    The exit code is 5 if something could not be terminated.
    """
    from . import detached_commands

    detached_commands.cancel(run_url)
