"""What a classifier process does: unpack a file, survey a piece of it, try the classifier out, classify a
block.

Each task takes small values, returns small values, and tells how far it is by calling `report(rows,
bad_rows)`.
"""

import functools
import platform
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import NamedTuple

from . import shipping, sources
from .borders import Piece
from .chunks import Chunk, bad_row, cut
from .classifier import Classify, classify_chunk
from .errors import DaskClassifyError, TooManyBadRows, WrongAnswer
from .parts import PartWriter, Receipt, describe_bad_row
from .processes import Report, Site
from .sources import Block, CsvFile, GeneratedRows, Layout

TRIAL_SECONDS = 0.25  # a trial that has measured this long is enough: its work is done again in the first block


@dataclass(frozen=True)
class Settings:
    """What a task must know to do a block: small enough to travel with each."""

    output: str
    fingerprint: str
    layout: Layout  # of what blocks read
    entry: str  # of the classifier
    slowness: int | None
    chunk_rows: int
    part_format: str
    header: bool  # a header line in the first part
    max_bad_rows: int  # in the whole run


class Trial(NamedTuple):
    """What trying the classifier out on the first rows has shown."""

    rows: int
    seconds_a_row: float


def versions() -> dict[str, str]:
    """The versions on which the bytes of a run depend."""
    names = ("dask-classify", "pandas", "numpy", "pyarrow")
    return {"python": ".".join(platform.python_version_tuple()[:2])} | {name: version(name) for name in names}


@functools.cache
def _classifier(entry: str, folder: str, slowness: int | None) -> Classify:
    """The classifier, made once in each process."""
    return shipping.load(entry, folder, slowness)


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
    """Load the classifier and run it on the first rows: fails fast, writes nothing, and measures.

    Raises UsageError where it cannot be loaded, WrongAnswer where it answers wrongly or raises on every row
    of the first chunk, TooManyBadRows where its first bad rows are too many already. The first chunk, which
    warms up, is measured only when there is no second.
    """
    classify = _classifier(settings.entry, site.folder, settings.slowness)
    rows = sources.rows_of(text, settings.layout.delimiter)
    measured, spent = 0, 0.0
    for number, chunk in enumerate(cut(rows, settings.layout, settings.chunk_rows)):
        if spent >= TRIAL_SECONDS:  # slow: a part of the second chunk, now that all is warm, tells enough
            chunk = replace(chunk, frame=chunk.frame.iloc[: 1 + len(chunk.frame) // 5])
        started = time.perf_counter()
        _, failed = _classify(classify, chunk, number + 1)
        seconds = time.perf_counter() - started
        if number == 0 and len(failed) == len(chunk.frame) and len(failed) > settings.max_bad_rows:
            raise WrongAnswer(
                f"The classifier raises on every row of the first chunk: {failed[0][1]}.",
                f"Its columns are: {', '.join(map(str, chunk.frame.columns[:12]))}. All values are text.",
            )
        if settings.max_bad_rows == 0:
            _stop_at_bad_row(chunk, failed, rows, settings, source)
        slow = number > 0 and spent + seconds >= TRIAL_SECONDS
        measured, spent = (measured + len(chunk.frame), spent + seconds) if number > 1 else (len(chunk.frame), seconds)
        if slow:
            break
    return Trial(len(rows), spent / measured if measured else 0.0)


def _stop_at_bad_row(chunk: Chunk, failed: list, rows: sources.Rows, settings: Settings, source: str) -> None:
    """Where no bad row is allowed, the trial stops at the first one, before anything is written."""
    for place, reason in _in_order(chunk, failed)[:1]:
        raise too_many(describe_bad_row(source, bad_row(rows, place, 0, reason, settings.layout.encoding)), 0)


def too_many(first: str, allowed: int) -> TooManyBadRows:
    """The error that names the first bad row."""
    limit = "no bad row is" if allowed == 0 else f"{allowed:,} bad rows are"
    return TooManyBadRows(
        f"Stopped at a bad row, where {limit} allowed: {first}.",
        "Mend the source or the classifier; or allow some, such as --max-bad 10 or 0.1%, and go on with --resume.",
    )


def _classify(classify: Classify, chunk: Chunk, number: int):
    try:
        return classify_chunk(classify, chunk.frame)
    except WrongAnswer as error:
        raise _named(error, f"chunk {number:,} (first row's index {chunk.frame.index[0]!r})") from error


def _named(error: WrongAnswer, chunk: str) -> WrongAnswer:
    return WrongAnswer(f"The classifier's answer to {chunk} is wrong: {error.message}.", error.hint)


def _in_order(chunk: Chunk, failed: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """All bad rows of a chunk, (place in the block, reason), in the source's order."""
    return sorted(chunk.malformed + [(chunk.numbers[place], reason) for place, reason in failed])


def classify_block(
    site: Site, report: Report, settings: Settings, file: CsvFile | GeneratedRows, block: Block
) -> Receipt:
    """Read one block, classify its chunks, write one part.

    Raises TooManyBadRows as soon as the block alone has more than the whole run may have.
    """
    classify = _classifier(settings.entry, site.folder, settings.slowness)
    rows = sources.read(file, block, settings.layout.delimiter)
    part = PartWriter(
        settings.output,
        block.index,
        part_format=settings.part_format,
        header=settings.header and block.index == 0,
        fingerprint=settings.fingerprint,
        worker=site.worker,
    )
    first_chunk = block.first_row // settings.chunk_rows + 1
    for number, chunk in enumerate(cut(rows, settings.layout, settings.chunk_rows), first_chunk):
        answers, failed = _classify(classify, chunk, number)
        for answer in answers:
            part.write(answer)
        for place, reason in _in_order(chunk, failed):
            part.quarantine(file.url, bad_row(rows, place, block.first_row, reason, settings.layout.encoding))
        if len(part.bad_rows) > settings.max_bad_rows:
            raise too_many(describe_bad_row(*part.bad_rows[0]), settings.max_bad_rows)
        report(part.rows, len(part.bad_rows))
    if part.rows + len(part.bad_rows) != block.rows:
        raise DaskClassifyError(
            f"Block {block.index} has {block.rows} rows, but {part.rows} were classified "
            f"and {len(part.bad_rows)} set aside.",
            "This is a defect of dask-classify: please report it. Nothing of this block was written.",
        )
    return part.commit()
