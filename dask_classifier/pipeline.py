"""`run(plan, cluster)`: map blocks over the cluster, collect receipts, write the manifest."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.deploy.cluster import Cluster

from . import storage
from .classifier.job import CLASSIFY_BLOCK
from .engine.connect import connect
from .engine.executors import Executor
from .engine.prepare import prepare, restore_copies
from .engine.single_file import write_single_file
from .errors import BlocksFailed, DaskClassifyError, LimitReached, ProcessDied, StorageError, TooManyBadRows, UsageError
from .pace import Pace
from .parts.receipts import Receipt
from .parts.run_folder import REPORT, single_file_name
from .rows.blocks import Block
from .rows.source import Source
from .runs.earlier import Earlier, look
from .runs.limits import Limits, Watch
from .runs.lock import Lock, held
from .runs.manifest import add_to_manifest, save_manifest
from .runs.plan_file import Cut
from .runs.planning import Input, Plan, new_run_id
from .runs.planning import plan as make_plan
from .runs.progress import CLASSIFYING, Beginning, Progress
from .runs.result import Result, open_run
from .runs.stages import Stages
from .show import notebook, report

_LETHAL = 3  # the run stops if its first blocks, this many, all kill their processes


def run(
    plan: Plan,
    cluster: Cluster | Client | str | None = None,
    *,
    resume: bool | None = None,
    overwrite: bool | None = None,
    progress: Progress | None = None,
    worker_timeout: str | float | None = None,
    limits: Limits | None = None,
    prediction: dict[str, Any] | None = None,
) -> Result:
    """Run a plan on a cluster and return its result.

    Parameters
    ----------
    plan : Plan
        What to do, from `plan`.
    cluster : Dask cluster, Client or str, optional
        A `LocalCluster`, an `EC2Cluster` or any other cluster of Dask's, a Client, the address of a scheduler, or
        "inline" for this process without Dask. Default: Dask's default Client, or all cores of this computer if there
        is none.
    resume, overwrite : bool, optional
        Whether to go on with the run in the plan's output, or to delete it and start over. Default: as in the plan.
    progress : Progress, optional
        Follows the run. Default: in Jupyter, the cell shows it.
    worker_timeout : float or str, optional
        Time to wait for the first worker of a cluster that has none: seconds, or "5m", which is the default.
    limits : Limits, optional
        When the run must end, and what it may cost.
    prediction : dict, optional
        What was predicted, `estimate(plan).choice.prediction`: plan.json keeps it, for the record.

    Returns
    -------
    Result
        The complete run; or, if the limits say so, what there is of it at a time: then `result.partial` is True.

    Raises
    ------
    LimitReached
        A limit has stopped the run.
    OutputExists
        The output holds a run, and the plan neither resumes nor overwrites it.
    RunInUse
        Another command is at work in the output.
    UsageError
        The classifier cannot be loaded, or the cluster cannot be used.
    WrongAnswer, TooManyBadRows, BlocksFailed
        The classifier's answers do not fit, or it fails on more rows than allowed.
    StorageError, SourceError, DamagedRun
        A file cannot be read or written, or is not what it was.
    ClusterError
        The cluster cannot be reached, or was lost.

    Whatever is raised, finished blocks are kept, and `resume=True` goes on from there.

    Examples
    --------
    >>> result = dc.run(plan, dc.LocalCluster(4))  # doctest: +SKIP
    >>> result = dc.run(plan, client, resume=True)  # doctest: +SKIP
    """
    plan = replace(_changed(plan, resume, overwrite), prediction=prediction)
    progress = progress or notebook.following()
    earlier = look(plan)
    if earlier.complete and not lacks_single_file(plan):
        progress.stage("complete already")
        return open_run(plan.output)
    if earlier.complete:
        with progress.shown(), held(plan.folder):
            return _complete_single_file(plan, cluster, progress, worker_timeout)
    with progress.shown(), held(plan.folder) as lock:
        # again: before the lock was acquired, another command may have finished blocks
        return _run(plan, look(plan), cluster, progress, worker_timeout, limits or Limits(), lock)


def lacks_single_file(plan: Plan) -> bool:
    """Return whether a complete run has still to write all rows to one file."""
    return plan.single_file and "single_file" not in open_run(plan.output).manifest


def _changed(plan: Plan, resume: bool | None, overwrite: bool | None) -> Plan:
    """Return the plan with the arguments `resume` and `overwrite` of the call."""
    given = {name: value for name, value in (("resume", resume), ("overwrite", overwrite)) if value is not None}
    plan = replace(plan, **given)
    if plan.resume and plan.overwrite:
        raise UsageError("A run cannot be both resumed and overwritten.", "Use --resume or --overwrite, not both.")
    return plan


def classify(
    input: Input,
    classifier: str | Callable[..., Any],
    output: str | Path | None = None,
    *,
    cluster: Cluster | Client | str | None = None,
    progress: Progress | None = None,
    worker_timeout: str | float | None = None,
    **options: Any,
) -> Result:
    """Plan a run and run it, in one call.

    Parameters
    ----------
    input : str, Path, sequence of these, DataFrame or Arrow table
        What to classify; see `plan`.
    classifier : str or callable
        The classifier; see `plan`.
    output : str or Path, optional
        Folder or s3:// URL of the run. Default: a new folder below `runs`.
    cluster : Dask cluster, Client or str, optional
        Where to run; see `run`.
    progress : Progress, optional
        Follows the run. Default: in Jupyter, the cell shows it.
    worker_timeout : float or str, optional
        Time to wait for the first worker; see `run`.
    **options
        The other options of `plan`, such as `max_bad` or `resume`.

    Returns
    -------
    Result
        The complete run.

    Raises
    ------
    DaskClassifyError
        What `plan` and `run` raise.

    Examples
    --------
    >>> dc.classify(df, lambda chunk: chunk["review"].str.len()).to_pandas()  # doctest: +SKIP
    """
    plan = make_plan(input, classifier, output, **options)
    return run(plan, cluster, progress=progress, worker_timeout=worker_timeout)


def _run(
    plan: Plan,
    earlier: Earlier,
    cluster,
    progress: Progress,
    worker_timeout: str | float | None,
    limits: Limits,
    lock: Lock,
) -> Result:
    stages = Stages(progress)
    stages.enter("connecting")
    with connect(cluster, new_run_id(), plan.package, progress, plan.renew_after, worker_timeout) as executor:
        with _followed(plan, executor, stages):
            cut = earlier.cut or prepare(plan, executor, stages)
            if earlier.cut:
                restore_copies(plan, earlier, executor, stages)
            progress.aim(limits.finish_by)
            progress.begin(cut.rows, len(cut.blocks), earlier.receipts)
            beginning = Beginning.of(cut.rows, len(cut.blocks), earlier.receipts)
            executor.tell(beginning=beginning, finish_by=limits.finish_by)
            stages.enter(CLASSIFYING)
            watch = Watch(limits, stages.entered[0][1], executor.instances.cost)
            try:
                receipts = _classify(plan, cut, earlier.receipts, executor, progress, watch, lock)
            except StorageError:
                with suppress(StorageError):
                    cut.restore(plan)
                raise
            if partial := watch.stopped_by and len(receipts) < len(cut.blocks):
                executor.close()  # so that no block is finished any more
                _stop_unless_partial(plan, cut, receipts, watch)
            stages.enter("publishing")
            resumed = [receipt.index for receipt in earlier.receipts]
            save_manifest(plan, cut, receipts, stages=stages.spent, resumed=resumed, partial=bool(partial), lock=lock)
            if plan.single_file and not partial:
                stages.enter("joining parts")
                _write_single_file(open_run(plan.output), executor)
    for _, file in cut.source.copies:
        storage.delete(file.data_url)
    result = open_run(plan.output)
    _report(result, progress)
    _record_the_end(executor, result, progress)
    return result


def _complete_single_file(plan: Plan, cluster, progress: Progress, worker_timeout: str | float | None) -> Result:
    """Write all rows of a complete run to one file, too."""
    with connect(cluster, new_run_id(), plan.package, progress, plan.renew_after, worker_timeout) as executor:
        progress.stage("joining parts")
        _write_single_file(open_run(plan.output), executor)
    return open_run(plan.output)


def _write_single_file(result: Result, executor: Executor) -> None:
    name = single_file_name(result.part_format.name)
    size = write_single_file(result, result.folder.path(name), executor)
    add_to_manifest(result.folder, single_file={"name": name, "bytes": size})


def _stop_unless_partial(plan: Plan, cut: Cut, receipts: tuple[Receipt, ...], watch: Watch) -> None:
    """Raise LimitReached, unless what is there at this time is to be published."""
    if watch.publishes:
        return
    spent = f", after about ${watch.dollars:.2f}" if watch.dollars else ""
    raise LimitReached(
        f"Stopped by {watch.stopped_by}{spent}: {len(receipts):,} of {len(cut.blocks):,} blocks are finished.",
        f"Continue with the same command, --output {plan.output} --resume, and another limit.",
    )


@contextmanager
def _followed(plan: Plan, executor: Executor, stages: Stages) -> Iterator[None]:
    """Report the beginning and the end of the run to its progress and to the dashboard's page."""
    if began := executor.instances.take_began():
        stages.entered[0] = ("starting machines", began)
    stages.progress.connected(executor.dashboard, executor.processes)
    stages.tell_page = executor.tell
    executor.tell(
        title=plan.output,
        classifier=plan.package.reference,
        report=plan.folder.path(REPORT),
        client=executor.client_name,
        deadline=executor.instances.deadline,
        stage=stages.entered[-1][0],
    )
    try:
        yield
    except BaseException as error:
        # not the message: it may quote a row, and whoever reaches the dashboard would read it
        executor.tell(end=f"failed: {type(error).__name__}" if isinstance(error, DaskClassifyError) else "interrupted")
        raise
    executor.tell(end="complete")


def _report(result: Result, progress: Progress) -> None:
    """Write report.html. The run is complete without it, so an error here is only a note."""
    try:
        report.save(result)
    except DaskClassifyError as error:
        progress.note(f"{REPORT} was not written: {error.message}")
    except Exception as error:
        progress.note(f"{REPORT} was not written: {type(error).__name__}: {error}. Please report this defect.")


def _record_the_end(executor: Executor, result: Result, progress: Progress) -> None:
    """Have the cluster add to manifest and report how its instances terminated, which is after the run."""

    def record(ending) -> None:
        fields = asdict(ending)
        add_to_manifest(result.folder, machines=fields | fields.pop("bill"))
        _report(open_run(result.output), progress)

    executor.instances.when_gone(record)


# --- the blocks ------------------------------------------------------------------------------------


def _classify(
    plan: Plan,
    cut: Cut,
    done: tuple[Receipt, ...],
    executor: Executor,
    progress: Progress,
    watch: Watch,
    lock: Lock,
) -> tuple[Receipt, ...]:
    """Classify the missing blocks and return the receipts of all blocks, in order; of fewer, if a limit is reached.

    Stop at the first failure, except for blocks that kill their processes: these are named once all others are done,
    unless the first few blocks all do so.
    """
    job = plan.job(plan.max_bad.of(cut.rows), cut.fingerprint(plan))
    receipts, lethal = {receipt.index: receipt for receipt in done}, {}
    bad_rows = _Budget(job.max_bad_rows, done)
    pace = Pace(cut, executor, progress, watch)
    arguments = ((job, cut.source.read_by(block), block) for block in pace.in_time(cut.missing(done)))
    with closing(executor.each(CLASSIFY_BLOCK, arguments, plan.block_timeout, watch.is_over)) as outcomes:
        for outcome in outcomes:
            lock.check()
            if isinstance(outcome.error, ProcessDied):
                lethal[outcome.number] = outcome.error
                if len(lethal) >= _LETHAL and len(receipts) == len(done):
                    break  # it is the classifier, not the rows
            elif outcome.error:
                raise outcome.error
            else:
                receipts[outcome.number] = outcome.value
                progress.finished(outcome.value)
                bad_rows.spend(outcome.value)
                pace.finished(outcome.value)
    if lethal and not watch.publishes:
        raise _blocks_failed(cut, lethal, len(receipts))
    return tuple(receipts[block.index] for block in cut.blocks if block.index in receipts)


class _Budget:
    """The bad rows of a run so far, against the number allowed."""

    def __init__(self, allowed: int, done: tuple[Receipt, ...]):
        self.allowed, self.spent = allowed, 0
        for receipt in done:
            self.spend(receipt)

    def spend(self, receipt: Receipt) -> None:
        """Count a receipt's bad rows. Raise TooManyBadRows if there are more than allowed."""
        self.spent += receipt.bad_rows
        if receipt.bad_rows and self.spent > self.allowed:
            raise TooManyBadRows.of(receipt.first_bad_row, self.allowed, receipt.first_traceback)


def _blocks_failed(cut: Cut, lethal: dict[int, DaskClassifyError], done: int) -> BlocksFailed:
    blocks = {block.index: block for block in cut.blocks}
    named = [
        f"{_described(blocks[index], cut.source)}, whose process {error.message}"
        for index, error in sorted(lethal.items())
    ]
    rest = f"; and {len(named) - 5} more" if len(named) > 5 else ""
    return BlocksFailed(
        f"{len(named)} of {len(blocks)} blocks could not be classified: {'; '.join(named[:5])}{rest}.",
        f"{done:,} finished blocks are kept. If rows need more memory or time, provide it and continue with "
        "--resume. After fixing the classifier, start over with --overwrite.",
    )


def _described(block: Block, source: Source) -> str:
    first, last = block.spans[0], block.spans[-1]
    names = [source.files[span.file].words for span in (first, last)]
    begin, end = f"{first.first_row + 1:,}", f"{last.first_row + last.rows:,}"
    rows = f"rows {begin} to {end} of" if first is last else f"row {begin} of {names[0]} to row {end} of"
    return f"block {block.index} ({rows} {names[1]})"
