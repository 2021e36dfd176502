"""What the commands for runs do: run, plan, generate, verify, report, fetch."""

import json
import logging
import sys
import time
from contextlib import contextmanager, nullcontext

import click
from dask.system import CPU_COUNT
from distributed.utils import silence_logging_cmgr

from .. import generate as generated_rows
from .. import pipeline, publishing, s3, storage
from ..engine.connect import INLINE
from ..errors import PARTIAL_EXIT_CODE, DaskClassifyError, Interrupted, OutputExists, StorageError, UsageError
from ..parts.formats import compressor
from ..parts.run_folder import DETACHED, MISSING, REPORT
from ..planner.estimate import EC2, LOCAL
from ..planner.replay import replay_of
from ..planner.target import Target
from ..runs import planning
from ..runs.earlier import look_unlocked
from ..runs.lock import held
from ..runs.outline import Outline
from ..runs.result import Result, open_run
from ..show import report as reports
from ..show.event_log import LoggingDisplay, event_log
from ..show.figures import figures
from ..show.terminal import Display, console_of, described
from ..units import count_of, format_bytes, parse_count
from .choosing import Wishes, choose, estimated, fleet_of, looked, packages_of, sampled_rows
from .clusters import check_credentials, cluster_of_run, cluster_size, is_complete, plain_cluster
from .conclusion import conclude, short

_OF_RUNS = {"dashboard_address", "profile"}  # options that are not those of instances


def run(
    options: dict,
    cluster_options: dict,
    wishes: Wishes,
    *,
    free: bool,
    worker_timeout: str | None,
    detach: bool,
    quiet: bool,
    as_json: bool,
    log_json: str | None,
) -> None:
    """Run `dask-classify run`: plan, choose, announce, classify, summarize.

    `free` says that no cluster was named, so that time and budget may choose one.
    """
    with event_log(log_json, options["output"]) as log:
        if cluster_options["cluster"] == "ec2":
            check_credentials(cluster_options["region"])
        plan = planning.plan(**options)
        cluster_options |= packages_of(plan, cluster_options)
        if log:
            log.started(plan)
        display = LoggingDisplay(log, quiet=quiet) if log else Display(quiet=quiet)
        how = {"free": free, "worker_timeout": worker_timeout, "detach": detach}
        result = _run(plan, cluster_options, wishes, display, as_json=as_json, **how)
        if not result:
            return
        exit_code = PARTIAL_EXIT_CODE if result.partial else 0
        if log:
            log.ended(result, exit_code)
    if as_json:
        without_parts = {name: value for name, value in result.manifest.items() if name != "parts"}
        click.echo(json.dumps({"output": result.output} | without_parts))
    if exit_code:
        sys.exit(exit_code)


def _run(
    plan: planning.Plan,
    cluster_options: dict,
    wishes: Wishes,
    display: Display,
    *,
    free: bool,
    worker_timeout: str | None,
    detach: bool,
    as_json: bool,
) -> Result | None:
    """Choose a cluster, run the plan on it, and print what there is; with `detach`, return None once it has begun."""
    started = time.time()
    cluster, workers = cluster_options.pop("cluster"), cluster_options.pop("workers")
    instance_options = {name: cluster_options[name] for name in cluster_options if name not in _OF_RUNS}
    chosen = choose(plan, cluster, workers, instance_options, wishes, display, free=free)
    cluster_options |= {"cluster": chosen.cluster, "workers": chosen.workers}
    _announce(plan, chosen.cluster, chosen.workers, display)
    quiet_dask = silence_logging_cmgr(logging.CRITICAL)  # errors that matter are raised by this package
    complete = is_complete(plan) if chosen.cluster == EC2 else look_unlocked(plan).complete
    complete = complete and not pipeline.lacks_single_file(plan)
    how = {
        "worker_timeout": worker_timeout,
        "limits": chosen.limits,
        "prediction": chosen.choice and chosen.choice.prediction,
    }
    if complete:
        cluster_options["cluster"] = INLINE
    elif detach and cluster_options["cluster"] == EC2:
        from . import detached_commands

        detached_commands.start(plan, cluster_options, display, as_json=as_json, **how)
        return None
    with (
        quiet_dask,
        nullcontext() if complete else _locked(plan),
        _resumable(plan, display),
        cluster_of_run(display, **cluster_options) as cluster,
    ):
        result = pipeline.run(plan, cluster, progress=display, **how)
    result = open_run(result.output)  # again: the end of a cluster adds to the manifest
    worked = display.snapshot().stage != "complete already"
    if not worked:
        display.say("The run is already complete. Nothing to do.")
    conclude(result, display, started, time.time() if worked else None, chosen.limits.finish_by)
    return result


def _announce(plan: planning.Plan, cluster: str, workers: int | None, display: Display) -> None:
    """Print what will be classified, and warn about options that are probably mistakes."""
    files = plan.source.files
    what = files[0].words if len(files) == 1 else count_of(len(files), "file")
    display.say(f"Classifying {what} with {plan.package.reference}, into {short(plan.output)}")
    if not plan.source.layout.columns:
        display.warn("the source is empty: there is nothing to classify.")
    if cluster == "local" and workers and workers > CPU_COUNT:
        display.warn(f"{workers} processes share {CPU_COUNT} cores; more than {CPU_COUNT} will not make it faster.")


@contextmanager
def _locked(plan: planning.Plan):
    """Lock the output for the `with` block, and delete what an earlier, detached attempt has said of itself there."""
    with held(plan.folder):
        if s3.is_s3(plan.output) and plan.folder.exists(DETACHED):
            plan.folder.delete(DETACHED)
        yield


@contextmanager
def _resumable(plan: planning.Plan, display: Display):
    """Raise Ctrl-C and SIGTERM as Interrupted, once everything is closed, and mention the blocks that are kept."""
    try:
        yield
    except KeyboardInterrupt:
        now = display.snapshot()
        raise Interrupted(
            f"Interrupted: {now.blocks_done:,} of {now.blocks:,} finished blocks are kept.",
            f"Continue with the same command and --output {short(plan.output)} --resume.",
        ) from None
    except OutputExists:
        raise
    except DaskClassifyError as error:
        if (count := display.snapshot().blocks_done) and error.exit_code != UsageError.exit_code:
            display.say(f"{count_of(count, 'finished block')} kept in {short(plan.output)}.")
        raise


def plan(
    options: dict,
    cluster_options: dict,
    *,
    target: dict,
    sample: str | None,
    history: str | None,
    replayed: str | None,
    as_json: bool,
) -> None:
    """Run `dask-classify plan`: print rows, chunks and blocks, instances and their price, times and costs."""
    if replayed:
        replay = replay_of(open_run(replayed))
        click.echo(json.dumps(replay.as_json()) if as_json else "\n".join(replay.lines()))
        return
    wanted, rows = Target.of(**target), sampled_rows(sample)
    if rows == 0 and wanted.is_given:
        raise UsageError("A time or a budget cannot be checked without a sample.", "Leave out --sample 0.")
    made = planning.plan(**options)
    cluster_options |= packages_of(made, cluster_options)
    cluster, workers = cluster_options["cluster"], cluster_options["workers"]
    instance_options = {name: value for name, value in cluster_options.items() if name not in {"cluster", "workers"}}
    processes, price, instances = cluster_size(cluster_options)
    outline = Outline.of(made, processes)
    estimate = None
    if rows != 0 and outline.rows:
        here, there = (workers, None) if cluster == LOCAL else (None, workers)
        fleet = fleet_of(cluster, workers, instance_options)
        earlier = looked(made, cluster) if made.resume else None
        estimate = estimated(
            made, fleet, wanted, processes=here, instances=there, rows=rows, history=history, earlier=earlier
        )
        sizes = [each.blocks for each in estimate.choices if (each.where, each.processes) == (cluster, processes)]
        blocks = len(earlier.cut.blocks) if earlier and earlier.cut else sizes[0] if sizes else None
        outline = outline.estimated(estimate.rows, blocks)
    words, numbers = outline.words, vars(outline) | (estimate.as_json() if estimate else {})
    if price:
        words |= {"instances": instances["words"], "price": str(price)}
        numbers |= {name: value for name, value in instances.items() if name != "words"} | price.as_json()
    if as_json:
        click.echo(json.dumps(numbers))
    else:
        for name, value in words.items():
            click.echo(f"{name:<12} {value}")
        click.echo("\n".join(["", *estimate.lines()]) if estimate else "", nl=bool(estimate))
    if estimate and estimate.recommended is None:
        raise UsageError(f"This run cannot meet its time or its budget: {estimate.why}.", "Allow more time or money.")


def generate(rows: str, seed: int, file: str, *, overwrite: bool) -> None:
    """Run `dask-classify generate`: write the generated rows to a file."""
    stream = generated_rows.csv_stream(seed, parse_count(rows, "number of rows"))
    compress = compressor(file)
    if file == "-":
        for text in stream:
            sys.stdout.buffer.write(text)
        return
    _refuse_existing(file, overwrite)
    with storage.open_whole(file) as out:
        for text in stream:
            out.write(compress(text))


def verify(run_url: str, *, as_json: bool) -> None:
    """Run `dask-classify verify`: print the outcome, or raise DamagedRun."""
    verified = open_run(run_url).verify()
    if as_json:
        click.echo(json.dumps(vars(verified)))
        return
    rows, bad_rows = count_of(verified.rows, "row"), count_of(verified.bad_rows, "bad row")
    parts = count_of(verified.parts, "part")
    click.echo(f"Verified: {rows} and {bad_rows} in {parts} ({format_bytes(verified.bytes)}).")
    if verified.missing:
        click.echo(f"Partial: {count_of(verified.missing, 'row')} missing, as {MISSING} lists them.")
    click.echo(f"sha256 {verified.sha256}")


def report(run_url: str, file: str | None, *, as_json: bool, overwrite: bool) -> None:
    """Run `dask-classify report`: print figures, and write the page if it is missing, or to a file."""
    result = open_run(run_url)
    run = figures(result)
    if file:
        _refuse_existing(file, overwrite)
        url = storage.absolute(file)
        storage.write(url, reports.encoded(reports.html(run, url)))
    if as_json:
        click.echo(json.dumps(run.as_json()))
        return
    console_of(sys.stdout).print(described(run), soft_wrap=True)
    if not file and not result.folder.exists(REPORT):
        try:
            result.folder.write(REPORT, reports.encoded(reports.html(run)))
        except StorageError as error:  # the run may be readable but not writable
            click.echo(f"The page was not written: {error.message} Hint: use --html FILE.", err=True)
            return
    click.echo(f"Page: {file or short(result.report)}")


def fetch(run_url: str, file: str, *, header: bool | None, overwrite: bool, quiet: bool) -> None:
    """Run `dask-classify fetch`: write the rows of a run to one file."""
    result = open_run(run_url)
    _warn_if_partial(result, quiet=quiet)
    if file == "-":
        result.write_to(sys.stdout.buffer, header=header)
        return
    _refuse_existing(file, overwrite)
    size = result.fetch(file, header=header is not False)
    if not quiet:
        click.echo(f"{file}: {result.rows:,} rows, {format_bytes(size)}", err=True)


def _warn_if_partial(result: Result, *, quiet: bool) -> None:
    if result.partial and not quiet:
        missing = count_of(result.manifest["rows_missing"], "row")
        click.echo(f"Warning: {missing} missing: the run is partial.", err=True)


def publish(
    run_url: str, file: str, *, header: bool | None, cluster: str, workers: int | None, overwrite: bool, quiet: bool
) -> None:
    """Run `dask-classify publish`: have workers write the rows of a run to one file."""
    result = open_run(run_url)
    _warn_if_partial(result, quiet=quiet)
    with silence_logging_cmgr(logging.CRITICAL), plain_cluster(cluster, workers) as connected:
        size = publishing.publish(result, file, cluster=connected, header=header, overwrite=overwrite)
    if not quiet:
        click.echo(f"{file}: {result.rows:,} rows, {format_bytes(size)}", err=True)


def _refuse_existing(file: str, overwrite: bool) -> None:
    if storage.exists(file) and not overwrite:
        raise OutputExists(f"{file} already exists.", "Choose another name, or use --overwrite.")
