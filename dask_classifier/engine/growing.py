"""The blocks of a run in their order: those that are known, and those of compressed inputs, as they become known.

A large compressed file cannot be surveyed before it is classified, since that would need another pass and the space
of its text. A worker reads it once, some blocks at a time, into pieces. A piece is deleted when its block has a
receipt, so the space is that of the blocks under way. Blocks are numbered in the order of the inputs, which is why
several large files flow one after the other.

Each block is written to the run's folder before it is classified. So a resumed run has the same blocks, and an
abandoned worker of an earlier attempt does no harm.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from .. import storage
from ..classifier.job import UNPACK, Trial
from ..errors import StorageError
from ..parts.receipts import Receipt
from ..parts.run_folder import BLOCKS, COPIES
from ..rows.blocks import NO_ROWS, Block, Marks, Sizes, Span, beginnings
from ..rows.blocks import cut as cut_source
from ..rows.source import FlowingFile
from ..rows.unpacking import Order, Unpacked
from ..runs.plan_file import Cut
from ..runs.planning import Plan
from ..runs.sizing import LARGEST_BYTES, MOST_BLOCKS, rows_of_next, shrink, too_many_blocks
from ..units import count_of
from .executors import Executor
from .flight import Over
from .outcomes import value_of

_MOST_AT_ONCE = 32  # pieces of one order
_DELETING_AT_ONCE = 8
_TELLING_SHARE = 0.05  # of a file: after it, the number of rows is not wrong by a factor of 4
_MOST_ROWS = 10**9  # if nothing is known
_USUAL_RATIO = 4  # bytes of text per compressed byte, until some of the text has been read


class GrowingCut:
    """The cut of a run, which grows while the run reads its compressed inputs.

    Parameters
    ----------
    plan : Plan
        The plan of the run.
    cut : Cut
        What is known of the cut.
    executor : Executor
        Where inputs are read.
    surveyed : sequence of Marks, optional
        Those of all inputs, if the cut is not complete.
    row_bytes : float, optional
        Mean length of the first rows.
    """

    def __init__(
        self, plan: Plan, cut: Cut, executor: Executor, surveyed: Sequence[Marks] = (), row_bytes: float = 0.0
    ):
        self.plan, self.cut, self.executor, self.surveyed = plan, cut, executor, surveyed
        self.row_bytes = max(1.0, row_bytes)
        self.damage: StorageError | None = None  # of an input, behind the last block
        self._rows_before_damage = 0  # in that input
        self._is_interrupted = False
        self._near = ""  # the worker that has the input open
        self._shares: dict[int, float] = {}  # of each flowing file that has been read
        self._rows = Counter()  # of each file in the blocks
        self._count(cut.blocks)
        self._deleting = ThreadPoolExecutor(_DELETING_AT_ONCE)
        self.may_write: Callable[[], None] = lambda: None  # raises if another command has the run's folder now

    def _count(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            for span in block.spans:
                self._rows[span.file] += span.rows

    # what is known

    @property
    def rows(self) -> int:
        """The rows of the run; an estimate until the cut is complete."""
        if self.cut.complete:
            return self.cut.rows
        rows = sum(map(self._rows_of, range(len(self.cut.source.files))))
        return rows if self.plan.limit is None else min(rows, self.plan.limit)

    def _rows_of(self, number: int) -> int:
        """Return the rows of a file, or an estimate."""
        file, rows = self.cut.source.files[number], self._rows[number]
        if not self._flows(number):
            return self.surveyed[number].rows[-1]
        if number < self._position()[0]:
            return rows
        share = self._shares.get(number)
        return max(rows, round(rows / share) if share and rows else round(_USUAL_RATIO * file.size / self.row_bytes))

    @property
    def most_rows(self) -> int:
        """The rows of the source or, until the cut is complete, a number that is surely larger."""
        if self.cut.complete:
            return self.cut.rows
        begin = self._position()[0]
        flowing = (number for number, _ in self.cut.source.flowing if number >= begin)
        is_known = all(self._shares.get(number, 0.0) > _TELLING_SHARE for number in flowing)
        most = 4 * self.rows if is_known else _MOST_ROWS
        return most if self.plan.limit is None else min(most, self.plan.limit)

    @property
    def blocks(self) -> int:
        """The number of blocks; an estimate until the cut is complete."""
        known, rows = len(self.cut.blocks), self.cut.rows
        if self.cut.complete:
            return known
        each = rows / known if known else self._sizing()(self.rows)
        return known + max(1, round((self.rows - rows) / each))

    def _position(self) -> tuple[int, int]:
        """Return the file and the row with which the next block begins, or would begin if the file has more rows.

        Inputs that were surveyed and are not separated by one that flows are cut at once.
        """
        if not self.cut.blocks:
            return 0, 0
        last = self.cut.blocks[-1].spans[-1]
        if self._flows(last.file):
            return last.file, last.first_row + last.rows
        behind = range(last.file + 1, len(self.cut.source.files))
        return next((number for number in behind if self._flows(number)), behind.stop), 0

    # the blocks

    def missing(self, receipts: tuple[Receipt, ...], is_over: Over | None = None) -> Iterator[Block]:
        """Yield the blocks without a receipt, in order; each can be read. End early if `is_over` returns True."""
        yield from self._readable(self.cut.missing(receipts), is_over)
        for blocks in self._growth(is_over, written=True):
            yield from blocks

    def is_done_by(self, receipts: Sequence[Receipt]) -> bool:
        """Return whether these are the receipts of all blocks."""
        return self.cut.complete and len(receipts) == len(self.cut.blocks)

    def finish(self) -> None:
        """Find the blocks of all rows that are left, which are not to be classified now. Raise what is damaged."""
        for _ in self._growth(None, written=False):
            pass
        self.check()

    def check(self) -> None:
        """Raise StorageError if an input is damaged behind the last block."""
        if self.damage:
            raise StorageError(
                self.damage.message,
                f"The {count_of(self._rows_before_damage, 'row')} before it are classified: {self.plan.output}/parts "
                "has all rows up to there. Replace the file by a complete one, and start over with --overwrite.",
            )

    def finished(self, receipt: Receipt) -> None:
        """Delete the pieces of a block that is done."""
        for span in self.cut.blocks[receipt.index].spans:
            if self._flows(span.file):
                self._deleting.submit(storage.delete, self.cut.source.files[span.file].piece(span.first_row, span.rows))

    def close(self) -> None:
        """Wait until all pieces are deleted that are to be deleted."""
        self._deleting.shutdown()

    def clean_up(self) -> None:
        """Delete what is not needed once all blocks are known and classified: copies, pieces, and files with blocks.

        What cannot be deleted does no harm.
        """
        with contextlib.suppress(StorageError):
            for name in self.plan.folder.sizes():
                if name.startswith((f"{COPIES}/", f"{BLOCKS}/")):
                    self.plan.folder.delete(name)

    def _flows(self, number: int) -> bool:
        file = self.cut.source.files[number]
        return isinstance(file, FlowingFile) and file.flows

    def _readable(self, blocks: list[Block], is_over: Over | None) -> Iterator[Block]:
        """Yield known blocks, and write their pieces before if these are not there."""
        there = self.plan.folder.sizes() if blocks and self.cut.source.flowing else {}
        at = 0
        while at < len(blocks):
            if not self._lacks_piece(blocks[at], there):
                yield blocks[at]
                at += 1
                continue
            lacking = list(itertools.takewhile(lambda block: self._lacks_piece(block, there), blocks[at:]))
            together = _following(lacking[: self._at_once()])
            span = together[0].spans[0]
            unpacked = self._unpack(
                span.file, Order(span.first_row, tuple(block.rows for block in together), exact=True), is_over
            )
            if unpacked is None:
                return
            yield from together[: len(unpacked.pieces)]
            at += len(unpacked.pieces)

    def _lacks_piece(self, block: Block, there: dict[str, int]) -> bool:
        span = block.spans[0]
        if not self._flows(span.file):
            return False
        url = self.cut.source.files[span.file].piece(span.first_row, span.rows)
        return there.get(url.removeprefix(f"{self.plan.output}/")) != span.stop

    # the growth

    def _growth(self, is_over: Over | None, *, written: bool) -> Iterator[list[Block]]:
        """Yield the blocks behind those that are known, some at a time; after the last ones, the cut is complete."""
        if self.cut.complete:
            return
        self._is_interrupted = False
        at, row = self._position()
        files = range(at, len(self.cut.source.files))
        for flows, group in itertools.groupby(files, key=self._flows):
            numbers = list(group)
            growth = self._of_flowing(numbers, row, is_over, written) if flows else self._of_surveyed(numbers)
            for blocks in growth:
                self.may_write()
                self.cut = self.cut.grown(self.plan, blocks)
                self._count(blocks)
                yield blocks
            if self._is_interrupted:
                return
            if self._left == 0:
                break
            row = 0
        self.may_write()
        self.cut = replace(self.cut, complete=True)
        self.cut.save(self.plan)

    @property
    def _left(self) -> int | None:
        """The rows that the limit leaves; None without a limit."""
        return None if self.plan.limit is None else self.plan.limit - self.cut.rows

    def _of_surveyed(self, numbers: list[int]) -> Iterator[list[Block]]:
        """Yield the blocks of inputs that were surveyed, all at once."""
        marks = [self.surveyed[number] if number in numbers else NO_ROWS for number in range(numbers[-1] + 1)]
        marks = beginnings(marks, self._left)
        rows = sum(each.rows[-1] for each in marks)
        behind = max(0, self.rows - self.cut.rows - rows)
        sizes = self._sizing()
        source = self.cut.source
        first = len(self.cut.blocks)
        blocks = [
            replace(block, index=first + block.index)
            for block in cut_source(
                marks, lambda left: sizes(left + behind), shrink(self.plan), source.joinable, self.plan.chunk_rows
            )
        ]
        self._check_number(len(blocks))
        if blocks:
            yield blocks

    def _of_flowing(
        self, numbers: Iterable[int], row: int, is_over: Over | None, written: bool
    ) -> Iterator[list[Block]]:
        """Yield the blocks of inputs that flow, of the first one from a row on, as a worker reads them."""
        for number in numbers:
            ended = False
            while not ended and self._left != 0:
                order = self._order(row, written)
                unpacked = self._unpack(number, order, is_over)
                if unpacked is None:
                    return
                ended, self._shares[number] = unpacked.ended, unpacked.share
                if blocks := self._blocks_of(unpacked, number, row):
                    row += sum(block.rows for block in blocks)
                    yield blocks
                if unpacked.damage:
                    self.damage, self._rows_before_damage = unpacked.damage, row
                    self._is_interrupted = True
                    return
            row = 0

    def _blocks_of(self, unpacked: Unpacked, number: int, row: int) -> list[Block]:
        """Return the blocks of pieces of a file, from a row on, and take note of the length of their rows."""
        self._check_number(len(unpacked.pieces))
        blocks = []
        for rows, size in unpacked.pieces:
            blocks.append(Block(len(self.cut.blocks) + len(blocks), (Span(rows, row, number, stop=size),)))
            row += rows
        if blocks:  # rows may have become longer
            self.row_bytes = max(1.0, sum(size for _, size in unpacked.pieces) / sum(block.rows for block in blocks))
        return blocks

    def _order(self, row: int, written: bool) -> Order:
        """Return the order for the next pieces of a file, sized like the blocks of other inputs."""
        if self.plan.block_rows and self.rows / self.plan.block_rows > 2 * MOST_BLOCKS:  # an estimate
            raise too_many_blocks(self.plan, self.rows)
        sizes, left = [], max(1, self.rows - self.cut.rows)
        next_rows = self._sizing()
        at_most = self._left
        for _ in range(self._at_once()):
            sizes.append(next_rows(left) if at_most is None else min(next_rows(left), at_most))
            left = max(1, left - sizes[-1])
            at_most = None if at_most is None else at_most - sizes[-1]
            if at_most == 0:
                break
        largest = None if self.plan.block_rows else LARGEST_BYTES
        return Order(row, tuple(sizes), largest=largest, chunk_rows=self.plan.chunk_rows, written=written)

    def _sizing(self) -> Sizes:
        trial = Trial(int(self.cut.seconds_a_row > 0), self.cut.seconds_a_row)
        return rows_of_next(
            self.plan, rows=self.rows, row_bytes=self.row_bytes, processes=self.executor.processes, trial=trial
        )

    def _at_once(self) -> int:
        return min(self.executor.processes, _MOST_AT_ONCE)

    def _unpack(self, number: int, order: Order, is_over: Over | None) -> Unpacked | None:
        """Have a worker read pieces of a file; None if the time is over."""
        arguments = self.cut.source.files[number], self.cut.source.layout, order
        outcome = self.executor.soon(UNPACK, arguments, self._near, is_over)
        self._is_interrupted = outcome is None
        if outcome is None:
            return None
        unpacked = value_of(outcome)
        self._near = unpacked.worker
        return unpacked

    def _check_number(self, more: int) -> None:
        if len(self.cut.blocks) + more > MOST_BLOCKS:
            raise too_many_blocks(self.plan, self.rows)


def _following(blocks: Sequence[Block]) -> list[Block]:
    """Return the first block and those behind it, as long as each begins where the one before it ends in its file."""
    together = [blocks[0]]
    for block in blocks[1:]:
        before, span = together[-1].spans[0], block.spans[0]
        if (span.file, span.first_row) != (before.file, before.first_row + before.rows):
            break
        together.append(block)
    return together
