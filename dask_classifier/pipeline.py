"""`run(plan, cluster)`: map blocks over the cluster, collect receipts, write the manifest."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.deploy.cluster import Cluster

from .engine.connect import connect
from .engine.executors import Executor
from .engine.growing import GrowingCut
from .engine.prepare import prepare
from .engine.single_file import write_single_file
from .errors import DaskClassifyError, LimitReached, UsageError
from .mapping import check_bad_rows, classify_blocks
from .parts.receipts import Receipt
from .parts.run_folder import REPORT, single_file_name
from .runs.earlier import Earlier, look, look_unlocked
from .runs.limits import Limits, Watch
from .runs.lock import Lock, held
from .runs.manifest import add_to_manifest, save_manifest
from .runs.planning import Input, Plan, new_run_id
from .runs.planning import plan as make_plan
from .runs.progress import CLASSIFYING, Beginning, Progress
from .runs.result import Result, open_run
from .runs.stages import Stages
from .show import notebook, report
from .units import format_dollars


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
    if look_unlocked(plan).complete and not lacks_single_file(plan):
        progress.stage("complete already")
        return open_run(plan.output)
    with progress.shown(), held(plan.folder) as lock:
        # again: before the lock was acquired, another command may have finished blocks, or the run
        earlier = look(plan)
        if not earlier.complete:
            return _run(plan, earlier, cluster, progress, worker_timeout, limits or Limits(), lock)
        if lacks_single_file(plan):
            return _complete_single_file(plan, cluster, progress, worker_timeout, lock)
        return open_run(plan.output)


def lacks_single_file(plan: Plan) -> bool:
    """Return whether a complete run has still to write all rows to one file."""
    if not plan.single_file:
        return False
    written = open_run(plan.output).manifest.get("single_file")
    return written is None or plan.folder.sizes().get(written["name"]) != written["bytes"]


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
            growing = prepare(plan, earlier, executor, stages)
            growing.may_write = lock.check
            _begin(growing, earlier, executor, progress, limits)
            stages.enter(CLASSIFYING)
            watch = Watch(limits, stages.entered[0][1], executor.instances.cost)
            with closing(growing):
                receipts = classify_blocks(growing, earlier.receipts, executor, progress, watch, lock)
            partial = watch.stopped_by and not growing.is_done_by(receipts)
            if partial:
                _stop_unless_partial(growing, receipts, watch)
                growing.finish()
                check_bad_rows(growing, receipts)  # now that the number of all rows is known
                partial = not growing.is_done_by(receipts)
                if partial:
                    executor.close()  # so that no block is finished any more
            growing.check()
            growing.clean_up()
            stages.enter("publishing")
            cut = growing.cut
            resumed = [receipt.index for receipt in earlier.receipts]
            save_manifest(plan, cut, receipts, stages=stages.spent, resumed=resumed, partial=bool(partial), lock=lock)
            if plan.single_file and not partial:
                stages.enter("joining parts")
                _write_single_file(open_run(plan.output), executor, lock)
    result = open_run(plan.output)
    _report(result, progress)
    _record_the_end(executor, result, progress)
    return result


def _complete_single_file(
    plan: Plan, cluster, progress: Progress, worker_timeout: str | float | None, lock: Lock
) -> Result:
    """Write all rows of a complete run to one file, too."""
    with connect(cluster, new_run_id(), plan.package, progress, plan.renew_after, worker_timeout) as executor:
        progress.stage("joining parts")
        _write_single_file(open_run(plan.output), executor, lock)
    return open_run(plan.output)


def _write_single_file(result: Result, executor: Executor, lock: Lock) -> None:
    name = single_file_name(result.part_format.name)
    size = write_single_file(result, result.folder.path(name), executor)
    lock.check()  # that took time, and the manifest may be another command's by now
    add_to_manifest(result.folder, result.manifest, single_file={"name": name, "bytes": size})


def _begin(growing: GrowingCut, earlier: Earlier, executor: Executor, progress: Progress, limits: Limits) -> None:
    """Tell displays how large the run is, as far as that is known."""
    size = growing.rows, growing.blocks
    progress.aim(limits.finish_by)
    progress.resize(*size, not growing.cut.complete)
    progress.begin(*size, earlier.receipts)
    executor.tell(
        beginning=Beginning.of(*size, earlier.receipts),
        size=(*size, not growing.cut.complete),
        finish_by=limits.finish_by,
    )


def _stop_unless_partial(growing: GrowingCut, receipts: tuple[Receipt, ...], watch: Watch) -> None:
    """Raise LimitReached, unless what is there at this time is to be published."""
    if watch.publishes:
        return
    spent = f", after about ${format_dollars(watch.dollars)}" if watch.dollars else ""
    about = "" if growing.cut.complete else "about "
    raise LimitReached(
        f"Stopped by {watch.stopped_by}{spent}: {len(receipts):,} of {about}{growing.blocks:,} blocks are finished.",
        f"Continue with the same command, --output {growing.plan.output} --resume, and another limit.",
    )


@contextmanager
def _followed(plan: Plan, executor: Executor, stages: Stages) -> Iterator[None]:
    """Report the beginning and the end of the run to its progress and to the dashboard's page."""
    if began := executor.instances.take_began(stages.entered[0][1]):
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
        if add_to_manifest(result.folder, result.manifest, machines=fields | fields.pop("bill")):
            _report(open_run(result.output), progress)

    executor.instances.when_gone(record)
