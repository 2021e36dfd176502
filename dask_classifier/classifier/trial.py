"""The trial: run the classifier on the first rows, before anything is written, to fail early and measure its speed."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd

from ..errors import TooManyBadRows, WrongAnswer, number_hint
from ..raised import Raised
from ..rows.chunks import Chunk, Parsed, cut
from .contract import Classify, answering, classify_chunk
from .job import TRIAL_SECONDS, Job, Trial

_MOST_NAMES = 12  # columns named in a hint
_WARM_UP_ROWS, _MEASURED_ROWS = 10, 30  # last rows of the trial's first pieces


def try_out(classify: Classify, parsed: Parsed, job: Job, source: str, folder: str) -> Trial:
    """Run the classifier on rows of a source for TRIAL_SECONDS; `folder` is where its files are.

    Raise WrongAnswer if an answer is wrong or the classifier raises on every row of the first chunk, and TooManyBadRows
    if no bad rows are allowed and there is one.
    """
    first_chunk = min(job.chunk_rows, len(parsed))
    tried = good = 0
    bad: list[tuple[Chunk, list]] = []  # pieces with rows that are malformed, or on which the classifier raises
    measurement = _Measurement()
    for piece in _pieces(cut(parsed, job.chunk_rows)):
        if measurement.leaves_no_time_for(len(piece.frame)) and (good or tried >= first_chunk):
            break
        started = time.perf_counter()
        with answering(_rows_of(piece), piece):
            _, failed = classify_chunk(classify, piece.frame, folder, deep=parsed.has_values)
        measurement.add(len(piece.frame), time.perf_counter() - started)
        tried, good = tried + len(piece.frame) + len(piece.malformed), good + len(piece.frame) - len(failed)
        bad += [(piece, failed)] if failed or piece.malformed else []
        if good or tried >= first_chunk:
            _check_bad_rows(bad, good, parsed, job, source)
    return Trial(len(parsed), measurement.seconds_a_row)


@dataclass
class _Measurement:
    """Rows and seconds of a trial's pieces. The first piece warms up and counts only if there is no second."""

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

    def leaves_no_time_for(self, rows: int) -> bool:
        """Return whether this number of rows would make the trial longer than TRIAL_SECONDS."""
        return self.pieces > 1 and self.seconds_a_row * rows > TRIAL_SECONDS - self.total


def _check_bad_rows(bad: list[tuple[Chunk, list]], good: int, parsed: Parsed, job: Job, source: str) -> None:
    """Stop if the classifier raises on all rows, or if there is a bad row and none is allowed."""
    raised = [exception for _, failed in bad for _, exception in failed]
    if raised and not good and len(raised) > job.max_bad_rows:
        error = WrongAnswer(
            f"The classifier raises an exception on every row of the first chunk: {raised[0].reason}.",
            _hint(bad[0][0].frame, parsed, raised[0]),
        )
        raise error.with_details(raised[0].traceback)
    if bad and job.max_bad_rows == 0:
        chunk, failed = bad[0]
        first = parsed.bad_row(*chunk.bad_rows(failed)[0], first_row=0)
        raise TooManyBadRows.of(first.describe(source), 0, first.traceback)


def _hint(frame: pd.DataFrame, parsed: Parsed, raised: Raised) -> str:
    """Return a hint that describes the chunk that the classifier got."""
    columns = list(map(str, frame.columns))
    names = ", ".join(f"'{name}'" for name in columns[:_MOST_NAMES])
    more = f" and {len(columns) - _MOST_NAMES} more" if len(columns) > _MOST_NAMES else ""
    is_text = not (isinstance(parsed.rows, pd.DataFrame) or parsed.layout.typed)  # but for columns of --dtype
    typed = "; all values are text" if is_text and not parsed.layout.types else ""
    chunk = f"The chunk's index is '{frame.index.name}', and "
    chunk += f"its columns are {names}{more}{typed}." if columns else "it has no columns."
    others = [other for other in ";\t|," if other != parsed.layout.delimiter and other in str(frame.index.name)]
    if not columns and others:
        return f"{chunk} Check the delimiter: --delimiter {others[0]!r}."
    return f"{chunk} {number_hint(raised.traceback) if is_text else ''}".rstrip()


def _pieces(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield chunks, the first one in pieces: a slow classifier takes a third of a second for a chunk."""
    for first in itertools.islice(chunks, 1):
        stops = (_WARM_UP_ROWS, _MEASURED_ROWS, len(first.frame))
        cuts = sorted({0, *(stop for stop in stops if stop <= len(first.frame))})
        for begin, end in itertools.pairwise(cuts if not first.malformed else (0, len(first.frame))):
            yield replace(first, frame=first.frame.iloc[begin:end], numbers=first.numbers[begin:end])
    yield from chunks


def _rows_of(piece: Chunk) -> str:
    return f"rows {piece.numbers[0] + 1:,} to {piece.numbers[-1] + 1:,}" if piece.numbers else "no rows"
