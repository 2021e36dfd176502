"""The commands for runs of every hour: ledger and backfill."""

import datetime
import json
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import click

from ..errors import UsageError

_AT_ONCE = 16  # folders that are looked at
_SIGNS = {"complete": "#", "partial": "p", "incomplete": "~", "running": ">", "missing": ".", "input changed": "!"}
_DONE = {"complete", "running"}
_HELP_SINCE = "First hour: 2026-11-26T07 (UTC), or -24h for 24 hours ago."
_HELP_UNTIL = "End, as for --since.  [default: now; the hour that has begun is left out]"


def span_options(command):
    """Add the options for a range of hours."""
    command = click.option("--until", metavar="TIME", help=_HELP_UNTIL)(command)
    return click.option("--since", metavar="TIME", default="-24h", show_default=True, help=_HELP_SINCE)(command)


def _entries(name: str, since: str, until: str | None, *, inputs: bool) -> list:
    from ..runs import hours

    now = datetime.datetime.now(datetime.UTC)
    end = hours.parse_time(until, now) if until else now.replace(minute=0, second=0, microsecond=0)
    times = hours.times(name, hours.parse_time(since, now), end)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda at: hours.looked(name, at, inputs=inputs), times))


@click.command(short_help="Show which hours or days have a complete run.")
@click.argument("name", metavar="NAME")
@span_options
@click.option("--inputs", is_flag=True, help="Also check whether input files have changed since their run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list with an object for each hour.")
def ledger(name, since, until, inputs, as_json):
    """Show, for every hour or day, whether its run is complete.

    NAME is the --output of the runs, with {date}, {hour}, {year}, {month} or {day} in it, quoted:
    's3://bucket/runs/{date}/{hour}'. Only manifests are read; with --inputs, plan.json and the files' versions, too.
    """
    entries = _entries(name, since, until, inputs=inputs)
    if as_json:
        click.echo(json.dumps([entry.as_json() for entry in entries]))
        return
    for day, of_day in groupby(entries, key=lambda entry: entry.at[:10]):
        of_day = list(of_day)
        first = int(of_day[0].at[11:13])
        click.echo(f"{day}  {' ' * first}{''.join(_SIGNS[entry.state] for entry in of_day)}")
    click.echo("  ".join(f"{sign} {state}" for state, sign in _SIGNS.items() if sign != "!" or inputs))
    for state in _SIGNS:
        if state != "complete" and (some := [entry for entry in entries if entry.state == state]):
            click.echo(f"{len(some):,} {state}, the first {some[0].at}: {some[0].output}")


@click.command(
    short_help="Run what is missing of every hour or day.",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]},
)
@span_options
@click.option("--inputs", is_flag=True, help="Start over where input files have changed since their run.")
@click.option("--yes", is_flag=True, help="Run the commands, one after the other; without it, they are printed.")
@click.argument("words", metavar="-- OPTIONS OF RUN", nargs=-1, required=True, type=click.UNPROCESSED)
def backfill(since, until, inputs, yes, words):
    """Print, or run with --yes, the command of each hour or day that has no complete run.

    After --, give the options of `run`, with {date} and {hour} in --output, and in --input where it depends on the
    hour. Each command gets --at and --resume. With --yes, the exit code is that of the first command that fails;
    the others run all the same.
    """
    failed = 0
    for entry in _entries(_output_of(words), since, until, inputs=inputs):
        if entry.state in _DONE:
            continue
        how = "--overwrite" if entry.state == "input changed" else "--resume"
        command = ["run", *words, "--at", entry.at, how]
        click.echo(f"dask-classify {shlex.join(command)}")
        if yes:
            code = _run(command)
            failed = failed or code
    sys.exit(failed)


def _run(command: list[str]) -> int:
    """Run a command in a process of its own, and return its exit code. What interrupts this one interrupts it, too."""
    process = subprocess.Popen([sys.executable, "-m", "dask_classifier", *command])
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()  # and not killed, as by `subprocess.run`: it may have instances
        process.wait()
        raise


def _output_of(words: tuple[str, ...]) -> str:
    for place, word in enumerate(words):
        if word.startswith("--output="):
            return word.partition("=")[2]
        if word == "--output" and place + 1 < len(words):
            return words[place + 1]
    raise UsageError("The options of run have no --output.", "Write, for example, --output 'runs/{date}/{hour}'.")
