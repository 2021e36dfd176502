"""The tasks of a classifier process: `classify_block`, which does nearly all of the work, and its preparations.

The preparations decompress a file, survey a piece of it, and try the classifier. Each task takes and returns small
values, and reports its progress by calling `report(rows, bad_rows)`.
"""

import functools
import itertools
import socket
import time
from collections.abc import Callable

from . import storage
from .classifier import bundle, trial
from .classifier.contract import Classify, answering, classify_chunk
from .classifier.job import Job, Measured, Report, Site, Trial
from .errors import StorageError
from .parts.receipts import Receipt
from .parts.writer import PartWriter
from .rows.borders import Piece, Rows
from .rows.chunks import cut, parse
from .rows.layouts import Layout
from .rows.source import Block, InputFile, SurveyedFile

Origin = Callable[[int], tuple[str, int]]  # from a place among the rows of a part to a file and a row in it
_WARM_UP_ROWS = 10  # of the first call in a process, which may load a model


def classify_block(site: Site, report: Report, job: Job, file: InputFile, block: Block) -> Receipt:
    """Read one block, classify its chunks and write one part.

    Raise TooManyBadRows as soon as the block alone has more bad rows than the run may have.
    """
    classify = _classifier(job.entry, site.folder, job.slowness)
    parsed = file.read(block, file.layout_of_rows(job.layout))
    part = PartWriter(job, block.index, parsed, site.worker)
    first_chunk = block.first_row // job.chunk_rows + 1
    _classify_chunks(classify, part, job, site, report, lambda place: (file.url, block.first_row + place), first_chunk)
    part.check_rows(block.rows)
    with answering(f"block {block.index}"):
        return part.commit()


def _classify_chunks(
    classify: Classify, part: PartWriter, job: Job, site: Site, report: Report, origin: Origin, first_chunk: int
) -> None:
    """Classify the rows of a part, chunk by chunk. `origin` returns the file and the row (from 0) of a place in it."""
    for number, chunk in enumerate(cut(part.parsed, job.chunk_rows), first_chunk):
        with answering(f"chunk {number:,}", chunk):
            answers, failed = classify_chunk(classify, chunk.frame, site.folder)
            for answer in answers:
                part.write(answer)
        for place, raised in chunk.bad_rows(failed):
            url, row = origin(place)
            part.quarantine(url, part.parsed.bad_row(place, raised, row - place))
        part.check_bad_rows(job.max_bad_rows)
        report(part.rows, len(part.bad_rows))


@functools.cache
def _classifier(entry: str, folder: str, slowness: int | None) -> Classify:
    """Return the classifier, which is loaded once in each process."""
    return bundle.load(entry, folder, slowness)


def forget_classifiers() -> None:
    """Make the next task load its classifier again."""
    _classifier.cache_clear()


def write_copy(site: Site, report: Report, file: SurveyedFile, encoding: str) -> int:
    """Write the decompressed copy of a file and return its size in bytes."""
    return file.write_copy(encoding)


def survey(site: Site, report: Report, file: SurveyedFile, start: int, delimiter: str) -> Piece:
    """Locate the rows in one piece of a file."""
    return file.survey(start, delimiter)


def try_out(
    site: Site, report: Report, job: Job, source: str, layout: Layout, text: bytes, probe: str | None = None
) -> Trial:
    """Load the classifier and run it on the first rows, CSV text of `source`. Nothing is written.

    `probe` is a file that the client has written to the output: where it cannot be found, parts would go elsewhere.
    Raises StorageError then, UsageError where the classifier cannot be loaded, and what `trial.try_out` raises.
    """
    if probe and not storage.exists(probe):
        raise StorageError(
            f"The worker {site.worker} on {socket.gethostname()} does not see files that this computer writes to "
            f"{job.output}.",
            "Give an --output that all workers and this computer share: s3://bucket/folder, or a network folder.",
        )
    classify = _classifier(job.entry, site.folder, job.slowness)
    parsed = parse(Rows.of(text, layout.delimiter), layout)
    return trial.try_out(classify, parsed, job, source, site.folder)


def measure(site: Site, report: Report, job: Job, places: list[tuple[InputFile, Block]]) -> Measured:
    """Classify some rows from each of several places like a block, but without writing it, and measure the time.

    All places have the same text format. Raises TooManyBadRows for a bad row if none are allowed.
    """
    layout = places[0][0].layout_of_rows(job.layout)
    texts = [file.read(block, layout).rows.text for file, block in places]
    text = b"".join(text if text.endswith(b"\n") else text + b"\n" for text in texts)  # at the end of a file
    loading, first_call = (None, 0.0) if _classifier.cache_info().currsize else _load(job, site, text, layout)
    classify = _classifier(job.entry, site.folder, job.slowness)
    wall, cpu = time.perf_counter(), time.process_time()
    part = PartWriter(job, 0, parse(Rows.of(text, layout.delimiter), layout), site.worker)
    _classify_chunks(classify, part, job, site, report, lambda place: _origin(place, places), first_chunk=1)
    with answering("the sample"):
        part.encoded()
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return Measured(len(part.parsed.rows), seconds, cpu_seconds, loading, first_call)


def _load(job: Job, site: Site, text: bytes, layout: Layout) -> tuple[float, float]:
    """Load the classifier and call it once with a few rows; return the seconds of both, and those of the call."""
    began = time.perf_counter()
    classify = _classifier(job.entry, site.folder, job.slowness)
    loaded = time.perf_counter()
    for chunk in itertools.islice(cut(parse(Rows.of(text, layout.delimiter), layout), _WARM_UP_ROWS), 1):
        classify_chunk(classify, chunk.frame, site.folder)
    return time.perf_counter() - began, time.perf_counter() - loaded


def _origin(place: int, places: list[tuple[InputFile, Block]]) -> tuple[str, int]:
    """Return the file and the row in it (from 0) of a row among those of all places."""
    for file, block in places:
        if place < block.rows:
            return file.url, block.first_row + place
        place -= block.rows
    raise IndexError(place)
