"""The commands for runs that were detached: attach, wait, cancel."""

import click

from .completion import FOLDER


@click.command(short_help="Show the progress of a detached run, and its result.")
@click.argument("run_url", metavar="RUN", type=FOLDER)
@click.option("--traceback", is_flag=True, help="Print the full traceback if the classifier raises.")
@click.option("--quiet", "-q", is_flag=True, help="Print only errors.")
def attach(run_url, traceback, quiet):
    """Show the progress of a run that was started with --detach, until it is over, and then its result.

    Ctrl-C ends only this command. What the run leaves on EC2 is terminated. The exit code is that of the run; or 4 if
    the instance that drove it was lost, and 5 if something could not be terminated.
    """
    from . import detached_commands

    detached_commands.attach(run_url, quiet=quiet, traceback=traceback)


@click.command(short_help="Wait until a detached run is over.")
@click.argument("run_url", metavar="RUN", type=FOLDER)
def wait(run_url):
    """Wait until a run that was started with --detach is over, and exit with its exit code.

    The same as `attach --quiet`: only errors are printed.
    """
    from . import detached_commands

    detached_commands.attach(run_url, quiet=True)


@click.command(short_help="Cancel a detached run: terminate its instances.")
@click.argument("run_url", metavar="RUN", type=FOLDER)
def cancel(run_url):
    """Terminate the instances of a run that was started with --detach. Finished blocks are kept.

    The exit code is 4 if EC2 could not be asked, and 5 if something could not be terminated.
    """
    from . import detached_commands

    detached_commands.cancel(run_url)
