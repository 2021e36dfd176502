"""`run(plan, cluster)`: map blocks over the cluster, collect receipts, write the manifest."""

import itertools
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict

from distributed import Client
from distributed.deploy.cluster import Cluster

from . import storage
from .classifier.job import CLASSIFY_BLOCK, SURVEY, TRY_OUT, WRITE_COPY, Trial
from .engine.executors import DaskExecutor, InlineExecutor, connect
from .errors import BlocksFailed, DaskClassifyError, ProcessDied, SourceError, TooManyBadRows
from .parts.receipts import Receipt
from .parts.run_folder import REPORT
from .rows.layouts import Layout
from .rows.source import Block, InputFile, Marks, Source
from .rows.source import cut as cut_source
from .runs.cut import Cut
from .runs.earlier import Earlier, clear, look
from .runs.manifest import Stage, add_machines, save_manifest
from .runs.planning import MOST_BLOCKS, Plan, new_run_id, rows_of_next, shrink, too_many_blocks
from .runs.progress import CLASSIFYING, Beginning, Progress
from .runs.result import Result, open_run
from .show import notebook, report

Executor = InlineExecutor | DaskExecutor
_TRIAL_CHUNKS = 20
_LETHAL = 3  # blocks that kill their processes, with none that does not, before the run stops


def run(
    plan: Plan,
    cluster: Cluster | Client | str | None = None,
    *,
    progress: Progress | None = None,
    worker_timeout: str | float | None = None,
) -> Result:
    """Do what the plan says, on a cluster: a LocalCluster or any other of Dask's, a Client, an address, or
    None for inline. `progress` follows the run; without it, in Jupyter, the cell shows how far it is.
    `worker_timeout` is how long to wait for the first worker of a cluster that has none yet ("5m").

    Returns the result. Raises TooManyBadRows, BlocksFailed, WrongAnswer, StorageError, SourceError,
    ClusterError, OutputExists, or UsageError where the classifier cannot be loaded. Whatever it raises,
    finished blocks are kept, and a plan with `resume=True` goes on from there.
    """
    progress = progress or notebook.following()
    earlier = look(plan)
    if earlier.complete:
        progress.stage("complete already")
        return open_run(plan.output)
    with progress.shown():
        return _run(plan, earlier, cluster, progress, worker_timeout)


def _run(plan: Plan, earlier: Earlier, cluster, progress: Progress, worker_timeout: str | float | None) -> Result:
    stages = _Stages(progress)
    stages.enter("connecting")
    with connect(cluster, new_run_id(), plan.package, progress, plan.renew_after, worker_timeout) as executor:
        with _followed(plan, executor, stages):
            cut = earlier.cut or _prepare(plan, executor, stages)
            if earlier.cut:
                _restore_copies(plan, earlier, executor, stages)
            progress.begin(cut.rows, len(cut.blocks), earlier.receipts)
            executor.tell(beginning=Beginning.of(cut.rows, len(cut.blocks), earlier.receipts))
            stages.enter(CLASSIFYING)
            receipts = _classify(plan, cut, earlier.receipts, executor, progress)
            stages.enter("publishing")
            save_manifest(
                plan, cut, receipts, stages=stages.spent, resumed=[receipt.index for receipt in earlier.receipts]
            )
    for _, file in cut.source.copies:
        storage.delete(file.data_url)
    result = open_run(plan.output)
    _report(result, progress)
    _record_the_end(cluster, result, progress)
    return result


class _Stages:
    """Tells those who follow the run which stage it has come to, and keeps when."""

    def __init__(self, progress: Progress):
        self.progress, self.tell_page = progress, lambda **told: None
        self.entered: list[tuple[str, float]] = []

    def enter(self, name: str) -> None:
        """The stage before is over."""
        now, told = time.time(), {"stage": name}
        if self.entered and self.entered[-1][0] == CLASSIFYING:
            told["classified"] = now - self.entered[-1][1]
            self.progress.classified(told["classified"])
        self.entered.append((name, now))
        self.progress.stage(name)
        self.tell_page(**told)

    def spent(self) -> list[Stage]:
        """Each stage until now."""
        ends = [began for _, began in self.entered[1:]] + [time.time()]
        return [Stage(name, began, end - began) for (name, began), end in zip(self.entered, ends, strict=True)]


@contextmanager
def _followed(plan: Plan, executor: Executor, stages: _Stages) -> Iterator[None]:
    """Tell what follows the run, on the client and on the dashboard's page, how it begins and how it ends."""
    machines = executor.machines
    if began := machines.take_began():
        stages.entered[0] = ("starting machines", began)
    stages.progress.connected(executor.dashboard, executor.processes)
    stages.tell_page = executor.tell
    executor.tell(
        title=plan.output,
        classifier=plan.package.reference,
        report=plan.folder.path(REPORT),
        client=executor.client_name,
        deadline=machines.deadline,
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
    """The page for people. A run is complete without it, whatever goes wrong here."""
    try:
        report.save(result)
    except DaskClassifyError as error:
        progress.note(f"{REPORT} was not written: {error.message}")
    except Exception as error:
        progress.note(f"{REPORT} was not written: {type(error).__name__}: {error}. Please report this defect.")


def _record_the_end(cluster, result: Result, progress: Progress) -> None:
    """Machines end after the run: their cluster adds to manifest and report what became of them."""

    def record(ending) -> None:
        add_machines(result.folder, asdict(ending))
        _report(open_run(result.output), progress)

    owner = getattr(cluster, "cluster", cluster)  # of a Client
    if hasattr(owner, "when_gone"):
        owner.when_gone(record)


# --- before the first block ------------------------------------------------------------------------


def _prepare(plan: Plan, executor: Executor, stages: _Stages) -> Cut:
    """Try the classifier out, then unpack, find the rows, cut; the first file is written once the trial is
    passed.
    """
    stages.enter("trying the classifier")
    chunks = 1 if plan.block_rows else _TRIAL_CHUNKS  # with nothing to measure, one shows whether it works
    name, layout, sample = plan.source.first_rows(chunks * plan.chunk_rows)
    trial = _try_out(executor, plan, name, layout, sample)
    source = plan.source.with_copies(_write_copies(plan.source.copies, plan.source.layout.encoding, executor, stages))
    stages.enter("finding rows")
    surveyed = _survey(source, executor)
    rows = sum(marks.rows[-1] for marks in surveyed)
    row_bytes = len(sample) / trial.rows if trial.rows else 0
    sizes = rows_of_next(plan, rows=rows, row_bytes=row_bytes, processes=executor.processes, trial=trial)
    blocks = tuple(itertools.islice(cut_source(surveyed, sizes, shrink(plan)), MOST_BLOCKS + 1))
    if len(blocks) > MOST_BLOCKS:
        raise too_many_blocks(plan, rows)
    cut = Cut(source, blocks, trial.seconds_a_row)
    if plan.overwrite:
        clear(plan)  # now nothing can be wrong with the new one
    cut.save(plan)
    return cut


def _try_out(executor: Executor, plan: Plan, name: str, layout: Layout, sample: bytes) -> Trial:
    """The trial; without a row, it still loads the classifier. Rows that kill their process are left to their
    block.
    """
    job = plan.job(plan.max_bad.of(10**9))  # a share of an unknown number of rows is no reason to stop here
    with closing(executor.each(TRY_OUT, [(job, name, layout, sample)], plan.block_timeout)) as outcomes:
        (outcome,) = outcomes
    if isinstance(outcome.error, ProcessDied):
        return Trial(0, 0.0)
    if outcome.error:
        raise outcome.error
    return outcome.value


def measure(plan: Plan, cluster: Cluster | Client | str | None) -> Trial:
    """The trial alone: nothing is written. Raises what a run's trial raises."""
    name, layout, sample = plan.source.first_rows(_TRIAL_CHUNKS * plan.chunk_rows)
    with connect(cluster, new_run_id(), plan.package, Progress()) as executor:
        return _try_out(executor, plan, name, layout, sample)


def _write_copies(
    files: list[tuple[int, InputFile]], encoding: str, executor: Executor, stages: _Stages
) -> dict[int, int]:
    """Write the decompressed copies of numbered files; return their sizes by the files' numbers."""
    if not files:
        return {}
    stages.enter("decompressing")
    outcomes = executor.each(WRITE_COPY, [(file, encoding) for _, file in files])
    return {files[number][0]: size for number, size in _all(outcomes)}


def _restore_copies(plan: Plan, earlier: Earlier, executor: Executor, stages: _Stages) -> None:
    """Write the copies again that missing blocks read and that are gone: a complete run has none."""
    there, needed = plan.folder.sizes(), {block.file for block in earlier.cut.missing(earlier.receipts)}
    lost = [
        (number, file)
        for number, file in earlier.cut.source.copies
        if number in needed and there.get(file.data_url.removeprefix(f"{plan.output}/")) != file.data_size
    ]
    sizes = _write_copies(lost, earlier.cut.source.layout.encoding, executor, stages)
    for number, file in lost:
        if sizes[number] != file.data_size:
            raise SourceError(f"{file.url} is not what it was when it was cut.", "Start again with --overwrite.")


def _survey(source: Source, executor: Executor) -> list[Marks]:
    pieces = source.pieces()
    arguments = [(source.files[file], start, source.layout.delimiter) for file, start in pieces]
    surveyed = sorted(_all(executor.each(SURVEY, arguments)))
    return source.marks([(pieces[n][0], piece) for n, piece in surveyed])


def _all(outcomes) -> Iterator[tuple[int, object]]:
    """The values, numbered; the first failure is raised."""
    with closing(outcomes):
        for outcome in outcomes:
            if isinstance(outcome.error, ProcessDied):
                raise BlocksFailed(
                    f"The source could not be read: a process {outcome.error.message}.",
                    "Has the machine enough memory? Then go on with --resume.",
                )
            if outcome.error:
                raise outcome.error
            yield outcome.number, outcome.value


# --- the blocks ------------------------------------------------------------------------------------


def _classify(
    plan: Plan, cut: Cut, done: tuple[Receipt, ...], executor: Executor, progress: Progress
) -> tuple[Receipt, ...]:
    """The receipts of all blocks, in order.

    Stops at the first failure; but blocks that kill their processes are named at the end, when all others are
    done, unless the first few all do.
    """
    job = plan.job(plan.max_bad.of(cut.rows), cut.fingerprint(plan))
    receipts, lethal = {receipt.index: receipt for receipt in done}, {}
    bad_rows = _Budget(job.max_bad_rows, done)
    arguments = [(job, cut.source.files[block.file], block) for block in cut.missing(done)]
    with closing(executor.each(CLASSIFY_BLOCK, arguments, plan.block_timeout)) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome.error, ProcessDied):
                lethal[outcome.number] = outcome.error
                if len(lethal) >= _LETHAL and not receipts:
                    break  # it is the classifier, not the rows
            elif outcome.error:
                raise outcome.error
            else:
                receipts[outcome.number] = outcome.value
                progress.finished(outcome.value)
                bad_rows.spend(outcome.value)
    if lethal:
        raise _blocks_failed(cut, lethal, len(receipts))
    return tuple(receipts[block.index] for block in cut.blocks)


class _Budget:
    """Counts bad rows against what is allowed."""

    def __init__(self, allowed: int, done: tuple[Receipt, ...]):
        self.allowed, self.spent = allowed, 0
        for receipt in done:
            self.spend(receipt)

    def spend(self, receipt: Receipt) -> None:
        """Raises TooManyBadRows when the receipt's bad rows exceed what is left."""
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
        f"{done:,} blocks are done and kept. If rows need more memory or time, give more of it and go on with "
        "--resume. After fixing the classifier, start again with --overwrite.",
    )


def _described(block: Block, source: Source) -> str:
    name = source.files[block.file].words
    return f"block {block.index} (rows {block.first_row + 1:,} to {block.first_row + block.rows:,} of {name})"
