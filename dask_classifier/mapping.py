"""`classify_blocks`: map the blocks of a run over the cluster, and collect their receipts."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

from . import storage
from .classifier.job import CLASSIFY_BLOCK, Job
from .engine.executors import Executor
from .engine.growing import GrowingCut
from .errors import BlocksFailed, DaskClassifyError, ProcessDied, StorageError, TooManyBadRows, WrongAnswer
from .pace import Pace
from .parts.receipts import Receipt
from .parts.run_folder import RunFolder, receipt_name
from .rows.blocks import Block
from .rows.source import Source
from .runs.limits import Watch
from .runs.lock import Lock
from .runs.plan_file import Cut
from .runs.progress import Progress

_LETHAL = 3  # the run stops if its first blocks, this many, all kill their processes
_SEEN_SECONDS = 60.0  # after which a network folder surely shows what another computer has written


def classify_blocks(
    growing: GrowingCut,
    done: tuple[Receipt, ...],
    executor: Executor,
    progress: Progress,
    watch: Watch,
    lock: Lock,
) -> tuple[Receipt, ...]:
    """Classify the blocks without a receipt and return the receipts of all, in order; of fewer, if a limit is reached.

    Stop at the first failure, except for blocks that kill their processes: these are named once all others are done,
    unless the first few blocks all do so. Whatever is raised, receipts are kept.
    """
    receipts, lethal, columns = {receipt.index: receipt for receipt in done}, {}, ()
    for receipt in done:
        columns = columns or receipt.columns
    bad_rows = _Budget(growing, done)
    pace = Pace(growing.cut, executor, progress, watch)
    sizes = _Sizes(growing, executor, progress)
    shared = _Shared(growing.plan.folder, executor)
    jobs = _jobs(growing, bad_rows)
    missing = growing.missing(done, watch.is_over)
    arguments = ((jobs(block), growing.cut.source.read_by(block), block) for block in pace.in_time(missing))
    timeout = growing.plan.block_timeout
    each = executor.each(CLASSIFY_BLOCK, arguments, timeout, watch.is_over)
    with _plan_restored(growing), closing(each) as outcomes:
        for outcome in outcomes:
            lock.check()
            sizes.tell()
            if isinstance(outcome.error, ProcessDied):
                lethal[outcome.number] = outcome.error
                if len(lethal) >= _LETHAL and len(receipts) == len(done):
                    break  # it is the classifier, not the rows
            elif outcome.error:
                raise outcome.error
            else:
                shared.check(outcome.value)
                columns = _same_columns(columns, outcome.value)
                receipts[outcome.number] = outcome.value
                growing.finished(outcome.value)
                progress.finished(outcome.value)
                bad_rows.spend(outcome.value)
                pace.finished(outcome.value)
    sizes.tell()
    if lethal and not watch.publishes:
        raise _blocks_failed(growing.cut, lethal, len(receipts))
    bad_rows.check()
    return tuple(receipts[block.index] for block in growing.cut.blocks if block.index in receipts)


def _same_columns(columns: tuple[str, ...], receipt: Receipt) -> tuple[str, ...]:
    """Return the columns of all parts. Raise WrongAnswer as soon as a part has others."""
    if columns and receipt.columns and columns != receipt.columns:
        raise WrongAnswer(
            f"The classifier's answer to block {receipt.index} has the columns {', '.join(receipt.columns)}, and "
            f"others have {', '.join(columns)}.",
            "Return the same columns for each chunk.",
        )
    return columns or receipt.columns


def check_bad_rows(growing: GrowingCut, receipts: tuple[Receipt, ...]) -> None:
    """Raise TooManyBadRows if there are too many, among as many rows as are known now."""
    _Budget(growing, receipts).check()


@contextmanager
def _plan_restored(growing: GrowingCut) -> Iterator[None]:
    """Write plan.json again, which --resume needs, if the run's folder was deleted during the `with` block."""
    try:
        yield
    except StorageError:
        with suppress(StorageError):
            growing.cut.restore(growing.plan)
        raise


def _jobs(growing: GrowingCut, bad_rows: "_Budget") -> Callable[[Block], Job]:
    """Return a function from a block to its job."""
    plan, fingerprint_of = growing.plan, growing.cut.fingerprints(growing.plan)
    return lambda block: plan.job(bad_rows.allowed, fingerprint_of(block))


class _Shared:
    """Checks that an output folder on a disk is the same here and on all workers, by the first part of each host."""

    def __init__(self, folder: RunFolder, executor: Executor):
        self.folder, self.executor, self.is_on_disk = folder, executor, storage.is_local(folder.url)
        self.hosts: set[str] = set()

    def check(self, receipt: Receipt) -> None:
        """Raise StorageError if a worker has written a part that is not here: it has another disk of the same name."""
        if not self.is_on_disk or receipt.host in self.hosts:
            return
        self.hosts.add(receipt.host)
        if not self.executor.is_remote:
            return
        until = time.monotonic() + _SEEN_SECONDS
        while not self.folder.exists(receipt_name(receipt.index)):
            if time.monotonic() > until:
                raise StorageError(
                    f"The parts that {receipt.worker} on {receipt.host} writes to {self.folder} are not there.",
                    "Give an output that this computer and all workers share: in S3, or in a network folder.",
                )
            time.sleep(_SEEN_SECONDS / 60)


class _Sizes:
    """Tells displays how large the run is, while that becomes known."""

    def __init__(self, growing: GrowingCut, executor: Executor, progress: Progress):
        self.growing, self.executor, self.progress = growing, executor, progress
        self.told = len(growing.cut.blocks), growing.cut.complete

    def tell(self) -> None:
        """Tell them, if there are more blocks than before."""
        now = len(self.growing.cut.blocks), self.growing.cut.complete
        if now == self.told:
            return
        self.told = now
        size = self.growing.rows, self.growing.blocks, not self.growing.cut.complete
        self.progress.resize(*size)
        self.executor.tell(size=size)


class _Budget:
    """The bad rows of a run so far, against the number allowed.

    A share is one of all rows. As long as their number is an estimate, more are allowed, and the exact number counts at
    the end.
    """

    def __init__(self, growing: GrowingCut, done: tuple[Receipt, ...]):
        self.growing, self.spent = growing, 0
        self.first: Receipt | None = None  # with bad rows
        for receipt in done:
            self.spend(receipt)

    @property
    def allowed(self) -> int:
        """The bad rows that the run may have."""
        return self.growing.plan.max_bad.of(self.growing.most_rows)

    def spend(self, receipt: Receipt) -> None:
        """Count a receipt's bad rows. Raise TooManyBadRows if there are more than allowed."""
        self.spent += receipt.bad_rows
        if receipt.bad_rows:
            self.first = self.first or receipt
            self.check()

    def check(self) -> None:
        """Raise TooManyBadRows if there are more than allowed."""
        if self.first and self.spent > self.allowed:
            raise TooManyBadRows.of(self.first.first_bad_row, self.allowed, self.first.first_traceback)


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
