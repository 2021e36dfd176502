"""What each command does, once its words are understood."""

import json
import logging
import os
import sys
import time
from contextlib import contextmanager

import click
from dask.system import CPU_COUNT
from distributed.utils import silence_logging_cmgr
from rich.console import Console

from .. import generate as generated_rows
from .. import pipeline, storage
from ..engine.local import LocalCluster
from ..errors import ClusterError, DaskClassifyError, Interrupted, OutputExists, StorageError, UsageError
from ..parts.formats import compressor
from ..parts.run_folder import REPORT
from ..runs import planning
from ..runs.earlier import look
from ..runs.outline import Outline
from ..runs.result import open_run
from ..show import report as reports
from ..show.terminal import Display, described, next_steps, summary
from ..units import count_of, format_bytes, parse_count

_FIRST_ROWS = 3


def run(options: dict, machines: dict, *, worker_timeout: str | None, quiet: bool, as_json: bool) -> None:
    """`dask-classify run`: plan, announce, run, sum up."""
    started = time.time()
    if machines["cluster"] == "ec2":
        _check_credentials(machines["region"])
    plan = planning.plan(**options)
    display = Display(quiet=quiet)
    _announce(plan, machines["cluster"], machines["workers"], display)
    quiet_dask = silence_logging_cmgr(logging.CRITICAL)  # what matters comes as an error of ours
    with quiet_dask, _resumable(plan, display), _machines(display, plan, **machines) as cluster:
        result = pipeline.run(plan, cluster, progress=display, worker_timeout=worker_timeout)
    worked = display.snapshot().stage != "complete already"
    if not worked:
        display.say("The run was complete already: nothing was done.")
    display.console.print(summary(result, time.time() - started if worked else None))
    display.say(f"The result is in {_short(result.output)}. It begins:" if result.rows else "There were no rows.")
    if result.rows:
        display.lines(result.first_lines(_FIRST_ROWS))
    if result.bad_rows:
        display.warn(f"{count_of(result.bad_rows, 'bad row')} in {_short(result.output)}/quarantine, with reasons.")
    display.say(next_steps(_short(result.output)))
    if as_json:
        told = open_run(result.output).manifest  # again: what became of the machines was added at their end
        click.echo(json.dumps({"output": result.output} | {k: v for k, v in told.items() if k != "parts"}))


def _short(output: str) -> str:
    """A local path as seen from here, when that is shorter."""
    if "://" in output:
        return output
    relative = os.path.relpath(output)
    return relative if len(relative) < len(output) else output


def _announce(plan: planning.Plan, cluster: str, workers: int | None, display: Display) -> None:
    """Say what will be done, before it is."""
    source = f"{len(plan.source.files):,} files" if len(plan.source.files) > 1 else plan.source.files[0].url
    what = f"{plan.source.files[0].rows:,} generated rows" if source == "generated" else source
    display.say(f"Classifying {what} with {plan.package.reference}, into {_short(plan.output)}")
    if not plan.source.layout.columns:
        display.warn("the source is empty: there is nothing to classify.")
    if cluster == "local" and workers and workers > CPU_COUNT:
        display.warn(f"{workers} processes share {CPU_COUNT} cores; more than {CPU_COUNT} will not make it faster.")


@contextmanager
def _machines(
    display: Display,
    plan: planning.Plan,
    *,
    cluster: str,
    workers: int | None,
    dashboard_address: str,
    profile: bool,
    **options,
):
    if cluster == "local":
        with LocalCluster(
            workers, dashboard_address=dashboard_address, profile=profile, silence_logs=logging.CRITICAL
        ) as machines:
            yield machines
    elif cluster == "ec2":
        from ..cluster import EC2Cluster

        if _settled(plan):
            yield "inline"
            return
        with EC2Cluster(workers, say=display.say, profile=profile, **options) as machines:
            yield machines
    elif cluster != "inline" and "://" not in cluster:
        from ..cluster import EC2Cluster
        from ..ec2 import named_clusters

        with EC2Cluster.attach(named_clusters.load(cluster), say=display.say) as machines:
            yield machines
    else:
        yield cluster


def _check_credentials(region: str | None) -> None:
    """Before S3 is asked for anything. Raises ClusterError or UsageError."""
    from ..ec2.aws import Aws

    Aws(region).credentials()


def _settled(plan: planning.Plan) -> bool:
    """Before a machine is paid for: whether the run is complete already, and whether it can be written. Raises
    ClusterError, or what the run would raise.
    """
    probe = ".dask-classify-probe"
    try:
        if look(plan).complete:
            return True
        plan.folder.write(probe, b"")
        plan.folder.delete(probe)
    except StorageError as error:
        raise ClusterError(error.message, error.hint) from error
    return False


@contextmanager
def _resumable(plan: planning.Plan, display: Display):
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


def plan(options: dict, machines: dict, *, measure: bool, as_json: bool) -> None:
    """`dask-classify plan`: rows, chunks and blocks; machines and their price; how long it will take."""
    made = planning.plan(**options)
    processes, price, instances = _offered(machines)
    outlined = Outline.of(made, processes)
    words, numbers = outlined.words, vars(outlined)
    if price:
        words |= {"instances": instances["words"], "price": str(price)}
        numbers |= {name: value for name, value in instances.items() if name != "words"} | price.as_json()
    if measure:
        more_words, more_numbers = _measured(made, outlined, price)
        words, numbers = words | more_words, numbers | more_numbers
    if as_json:
        click.echo(json.dumps(numbers))
        return
    for name, value in words.items():
        click.echo(f"{name:<12} {value}")


def _measured(plan: planning.Plan, outlined: Outline, price) -> tuple[dict, dict]:
    """Time and cost of a plan, by a trial on this computer, for people and for programs."""
    dollars = price.dollars if price else None
    with LocalCluster(1, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL) as here:
        estimate = pipeline.estimate(plan, here, processes=outlined.processes, dollars_per_hour=dollars)
    numbers = {"ms_per_row": estimate.ms_per_row, "seconds": estimate.seconds, "dollars": estimate.dollars}
    return estimate.words, numbers


def _offered(machines: dict):
    """Processes; on EC2 also the price of an hour and the instances. AWS is asked, nothing is started."""
    workers = machines.pop("workers")
    if (cluster := machines.pop("cluster")) not in {"local", "ec2"}:
        raise UsageError(f"What a run on {cluster} takes is not known.", "Give --cluster local or --cluster ec2.")
    if cluster == "local":
        return workers or CPU_COUNT, None, {}
    from ..ec2 import placement, prices
    from ..ec2.aws import Aws
    from ..ec2.spec import spec_of

    spec = spec_of(workers, machines)
    aws = Aws(spec.region)
    aws.credentials()
    found = placement.look(aws, spec)
    price = prices.hourly(aws, spec, found, spec.workers)
    instances = {
        "words": f"{found.words(spec, spec.workers)}, in {aws.region}",
        "instances": spec.workers,
        "instance_type": found.offers["worker"][0].type,
        "market": found.offers["worker"][0].market,
        "scheduler_instance_type": found.offers["scheduler"][0].type,
        "region": aws.region,
    }
    return spec.workers * found.processes(spec), price, instances


def generate(rows: str, seed: int, file: str, *, overwrite: bool) -> None:
    """`dask-classify generate`: the synthetic rows as a file."""
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
    """`dask-classify verify`: the run's proof, or DamagedRun."""
    found = open_run(run_url).verify()
    if as_json:
        click.echo(json.dumps(vars(found)))
        return
    rows, bad_rows = count_of(found.rows, "row"), count_of(found.bad_rows, "bad row")
    parts = count_of(found.parts, "part")
    click.echo(f"Verified: {rows} and {bad_rows} in {parts} ({format_bytes(found.bytes)}).")
    click.echo(f"sha256 {found.sha256}")


def report(run_url: str, file: str | None, *, as_json: bool, overwrite: bool) -> None:
    """`dask-classify report`: a run's figures; and its page, where there is none yet, or in a file."""
    result = open_run(run_url)
    figures = reports.figures(result)
    if file:
        _refuse_existing(file, overwrite)
        place = storage.absolute(file)
        storage.write(place, reports.html(figures, place).encode())
    if as_json:
        click.echo(json.dumps(figures.as_json()))
        return
    Console(highlight=False, soft_wrap=True).print(described(figures))
    if not file and not result.folder.exists(REPORT):
        try:
            result.folder.write(REPORT, reports.html(figures).encode())
        except StorageError as error:  # it may be a run that one can read and not write
            click.echo(f"There is no page: {error.message} --html FILE writes one.", err=True)
            return
    click.echo(f"Page: {file or _short(result.report)}")


def fetch(run_url: str, file: str, *, header: bool | None, overwrite: bool, quiet: bool) -> None:
    """`dask-classify fetch`: one file from a run."""
    result = open_run(run_url)
    if file == "-":
        result.write_to(sys.stdout.buffer, header=header)
        return
    _refuse_existing(file, overwrite)
    size = result.fetch(file, header=header is not False)
    if not quiet:
        click.echo(f"{file}: {result.rows:,} rows, {format_bytes(size)}", err=True)


def _refuse_existing(file: str, overwrite: bool) -> None:
    if storage.exists(file) and not overwrite:
        raise OutputExists(f"{file} exists.", "Choose another file, or --overwrite.")
