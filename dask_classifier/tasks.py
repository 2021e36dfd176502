"""What a classifier process does: unpack a file, survey a piece of it, try the classifier out, classify a
block.

Each task takes small values, returns small values, and tells how far it is by calling `report(rows,
bad_rows)`.
"""

import contextlib
import functools
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd

from .classifier import bundle
from .classifier.contract import Classify, classify_chunk
from .classifier.job import Settings, Trial, number_hint, too_many
from .engine.serving import Report, Site
from .errors import DaskClassifyError, WrongAnswer
from .parts.receipts import Receipt
from .parts.writer import PartWriter, describe_bad_row
from .raised import Raised
from .rows import sources
from .rows.borders import Piece
from .rows.chunks import Chunk, bad_row, cut, parse
from .rows.sources import Block, CsvFile, GeneratedRows

TRIAL_SECONDS = 0.25  # a trial that has taken this long is enough: its work is done again in the first block
_MOST_NAMES = 12  # of columns, in a hint
_WARM_UP_ROWS, _MEASURED_ROWS = 10, 30  # where the trial's first pieces end


@functools.cache
def _classifier(entry: str, folder: str, slowness: int | None) -> Classify:
    """The classifier, made once in each process."""
    return bundle.load(entry, folder, slowness)


def forget_classifiers() -> None:
    """Let the next task load its classifier anew."""
    _classifier.cache_clear()


def unpack(site: Site, report: Report, file: CsvFile, encoding: str) -> int:
    """Write the unpacked copy of a file; returns its size in bytes."""
    return sources.unpack(file, encoding)


def survey(site: Site, report: Report, file: CsvFile, nominal: int, delimiter: str) -> Piece:
    """Find the rows in one piece of a file."""
    return sources.survey_piece(file, nominal, delimiter)


def try_out(site: Site, report: Report, settings: Settings, source: str, text: bytes) -> Trial:
    """Load the classifier and run it on the first rows, for TRIAL_SECONDS: fails fast, writes nothing, and measures.

    Raises UsageError where it cannot be loaded, WrongAnswer where it answers wrongly or raises on every row of
    the first chunk, TooManyBadRows where its first bad rows are too many already.
    """
    classify = _classifier(settings.entry, site.folder, settings.slowness)
    rows = sources.rows_of(text, settings.layout.delimiter)
    first_chunk = min(settings.chunk_rows, len(rows))
    seen = good = 0
    bad: list[tuple[Chunk, list]] = []  # pieces with rows on which the classifier raises, or that are malformed
    measured = _Measured()
    for piece in _pieces(cut(parse(rows, settings.layout), settings.chunk_rows)):
        if measured.enough_for(len(piece.frame)) and (good or seen >= first_chunk):
            break
        started = time.perf_counter()
        with _named(_rows_of(piece), piece):
            _, failed = classify_chunk(classify, piece.frame, site.folder)
        measured.add(len(piece.frame), time.perf_counter() - started)
        seen, good = seen + len(piece.frame) + len(piece.malformed), good + len(piece.frame) - len(failed)
        bad += [(piece, failed)] if failed or piece.malformed else []
        if good or seen >= first_chunk:
            _judge(bad, good, rows, settings, source)
    return Trial(len(rows), measured.seconds_a_row)


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


def _judge(bad: list[tuple[Chunk, list]], good: int, rows: sources.Rows, settings: Settings, source: str) -> None:
    """Stop where the classifier raises on all rows, or where no bad row is allowed, before anything is written."""
    raised = [what for _, failed in bad for _, what in failed]
    if raised and not good and len(raised) > settings.max_bad_rows:
        error = WrongAnswer(
            f"The classifier raises on every row of the first chunk: {raised[0].reason}.",
            _about(bad[0][0].frame, settings.layout.delimiter, raised[0]),
        )
        raise error.with_details(raised[0].traceback)
    if bad and settings.max_bad_rows == 0:
        place, what = _in_order(*bad[0])[0]
        first = bad_row(rows, place, 0, what, settings.layout.encoding)
        raise too_many(describe_bad_row(source, first), 0, first.traceback)


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


@contextlib.contextmanager
def _named(name: str, chunk: Chunk | None = None) -> Iterator[None]:
    """A wrong answer says to what it was the answer."""
    try:
        yield
    except WrongAnswer as error:
        first = f" (first row's index {chunk.frame.index[0]!r})" if chunk else ""
        raise WrongAnswer(f"The classifier's answer to {name}{first} is wrong: {error.message}.", error.hint) from error


def _in_order(chunk: Chunk, failed: list[tuple[int, Raised]]) -> list[tuple[int, Raised]]:
    """All bad rows of a chunk, (place in the block, why), in the source's order."""
    places = [(chunk.numbers[place], raised) for place, raised in failed]
    return sorted(chunk.malformed + places, key=lambda bad: bad[0])


def classify_block(
    site: Site, report: Report, settings: Settings, file: CsvFile | GeneratedRows, block: Block
) -> Receipt:
    """Read one block, classify its chunks, write one part.

    Raises TooManyBadRows as soon as the block alone has more than the whole run may have.
    """
    classify = _classifier(settings.entry, site.folder, settings.slowness)
    rows = sources.read(file, block, settings.layout.delimiter)
    parsed = parse(rows, settings.layout)
    part = PartWriter(
        settings.output,
        block.index,
        parsed,
        part_format=settings.part_format,
        header=settings.header and block.index == 0,
        fingerprint=settings.fingerprint,
        worker=site.worker,
    )
    first_chunk = block.first_row // settings.chunk_rows + 1
    for number, chunk in enumerate(cut(parsed, settings.chunk_rows), first_chunk):
        with _named(f"chunk {number:,}", chunk):
            answers, failed = classify_chunk(classify, chunk.frame, site.folder)
            for answer in answers:
                part.write(answer)
        for place, why in _in_order(chunk, failed):
            part.quarantine(file.url, bad_row(rows, place, block.first_row, why, settings.layout.encoding))
        if len(part.bad_rows) > settings.max_bad_rows:
            first = part.bad_rows[0]
            raise too_many(describe_bad_row(*first), settings.max_bad_rows, first[1].traceback)
        report(part.rows, len(part.bad_rows))
    if part.rows + len(part.bad_rows) != block.rows:
        raise DaskClassifyError(
            f"Block {block.index} has {block.rows} rows, but {part.rows} were classified "
            f"and {len(part.bad_rows)} set aside.",
            "This is a defect of dask-classify: please report it. Nothing of this block was written.",
        )
    with _named(f"block {block.index}"):
        return part.commit()
