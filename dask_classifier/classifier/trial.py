"""The trial: a classifier on the first rows, before anything is written. It fails fast, and measures."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd

from ..errors import TooManyBadRows, WrongAnswer, number_hint
from ..raised import Raised
from ..rows.chunks import Chunk, Parsed, cut
from .contract import Classify, answering, classify_chunk
from .job import Job, Trial

TRIAL_SECONDS = 0.25  # a trial that has taken this long is enough: its work is done again in the first block
_MOST_NAMES = 12  # of columns, in a hint
_WARM_UP_ROWS, _MEASURED_ROWS = 10, 30  # where the trial's first pieces end


def try_out(classify: Classify, parsed: Parsed, job: Job, source: str, folder: str) -> Trial:
    """Run the classifier on rows of a source for TRIAL_SECONDS; `folder` is where its files are.

    Raises WrongAnswer where it answers wrongly or raises on every row of the first chunk, TooManyBadRows where the
    first bad rows are too many already.
    """
    first_chunk = min(job.chunk_rows, len(parsed.rows))
    seen = good = 0
    bad: list[tuple[Chunk, list]] = []  # pieces with rows on which the classifier raises, or that are malformed
    measured = _Measured()
    for piece in _pieces(cut(parsed, job.chunk_rows)):
        if measured.enough_for(len(piece.frame)) and (good or seen >= first_chunk):
            break
        started = time.perf_counter()
        with answering(_rows_of(piece), piece):
            _, failed = classify_chunk(classify, piece.frame, folder)
        measured.add(len(piece.frame), time.perf_counter() - started)
        seen, good = seen + len(piece.frame) + len(piece.malformed), good + len(piece.frame) - len(failed)
        bad += [(piece, failed)] if failed or piece.malformed else []
        if good or seen >= first_chunk:
            _judge(bad, good, parsed, job, source)
    return Trial(len(parsed.rows), measured.seconds_a_row)


@dataclass
class _Measured:
    """What the pieces of a trial have taken. The first one warms up, and counts only when there is no second."""

    rows: int = 0
    seconds: float = 0.0
    pieces: int = 0
    total: float = 0.0

    def add(self, rows: int, seconds: float) -> None:
        self.pieces, self.total = self.pieces + 1, self.total + seconds
        self.rows, self.seconds = (rows, seconds) if self.pieces <= 2 else (self.rows + rows, self.seconds + seconds)

    @property
    def seconds_a_row(self) -> float:
        return self.seconds / self.rows if self.rows else 0.0

    def enough_for(self, rows: int) -> bool:
        """Whether so many rows more would take longer than a trial should."""
        return self.pieces > 1 and self.seconds_a_row * rows > TRIAL_SECONDS - self.total


def _judge(bad: list[tuple[Chunk, list]], good: int, parsed: Parsed, job: Job, source: str) -> None:
    """Stop where the classifier raises on all rows, or where no bad row is allowed, before anything is written."""
    raised = [what for _, failed in bad for _, what in failed]
    if raised and not good and len(raised) > job.max_bad_rows:
        error = WrongAnswer(
            f"The classifier raises on every row of the first chunk: {raised[0].reason}.",
            _about(bad[0][0].frame, parsed.layout.delimiter, raised[0]),
        )
        raise error.with_details(raised[0].traceback)
    if bad and job.max_bad_rows == 0:
        chunk, failed = bad[0]
        first = parsed.bad_row(*chunk.bad_rows(failed)[0], first_row=0)
        raise TooManyBadRows.of(first.describe(source), 0, first.traceback)


def _about(frame: pd.DataFrame, delimiter: str, raised: Raised) -> str:
    """What the classifier was given, as a hint."""
    columns = list(map(str, frame.columns))
    names = ", ".join(f"'{name}'" for name in columns[:_MOST_NAMES])
    more = f" and {len(columns) - _MOST_NAMES} more" if len(columns) > _MOST_NAMES else ""
    given = f"The chunk's index is '{frame.index.name}', and "
    given += f"its columns are {names}{more}; all values are text." if columns else "it has no columns."
    others = [other for other in ";\t|," if other != delimiter and other in str(frame.index.name)]
    if not columns and others:
        return f"{given} Check the delimiter: --delimiter {others[0]!r}."
    return f"{given} {number_hint(raised.traceback)}".rstrip()


def _pieces(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Chunks, the first in pieces: a slow classifier takes a third of a second for a chunk."""
    for first in itertools.islice(chunks, 1):
        stops = (_WARM_UP_ROWS, _MEASURED_ROWS, len(first.frame))
        cuts = sorted({0, *(stop for stop in stops if stop <= len(first.frame))})
        for begin, end in itertools.pairwise(cuts if not first.malformed else (0, len(first.frame))):
            yield replace(first, frame=first.frame.iloc[begin:end], numbers=first.numbers[begin:end])
    yield from chunks


def _rows_of(piece: Chunk) -> str:
    return f"rows {piece.numbers[0] + 1:,} to {piece.numbers[-1] + 1:,}" if piece.numbers else "no rows"
