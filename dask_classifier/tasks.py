"""The tasks of a classifier process: `classify_block`, which does nearly all of the work, and its preparations.

The preparations survey a piece of a file, or write pieces of one that is compressed, and try the classifier. Each
task takes and returns small values, and reports its progress by calling `report(rows, bad_rows)`.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pandas as pd

from . import storage
from .classifier import bundle, trial
from .classifier.contract import Classify, answering, classify_chunk
from .classifier.job import Job, Measured, Report, Site, Trial
from .errors import ProcessDied, UsageError
from .parts.assembly import Assembly, Piece
from .parts.receipts import Receipt
from .parts.writer import PartWriter
from .rows.blocks import Block, Span
from .rows.borders import Rows
from .rows.chunks import Chunk, cut, parse
from .rows.layouts import Layout
from .rows.reading import FILES_AT_ONCE, read
from .rows.source import CopiedFile, FlowingFile, InputFile, Surveyed, SurveyedFile
from .rows.unpacking import Order, Unpacked, Unpacker

Origin = Callable[[int], tuple[str, int]]  # from a place among the rows of a part to a file and a row in it
_WARM_UP_ROWS = 10  # of the first call in a process, which may load a model
_UNPACKER = Unpacker()


def classify_block(site: Site, report: Report, job: Job, files: Sequence[InputFile], block: Block) -> Receipt:
    """Read one block from the files of its spans, classify its chunks and write one part.

    Raise TooManyBadRows as soon as the block alone has more bad rows than the run may have.
    """
    classify = _loaded_again(job, site)
    parsed = parse(read(files, block.spans, job.layout), files[0].layout_of_rows(job.layout), block.spans)
    part = PartWriter(job, block.index, parsed, site.worker)
    origin = functools.partial(_origin, places=list(zip(files, block.spans, strict=True)))
    end = 0
    for span in block.spans:
        begin, end = end, end + span.rows
        chunks = enumerate(cut(parsed, job.chunk_rows, begin, end), span.first_row // job.chunk_rows + 1)
        _classify_chunks(classify, part, chunks, job, site, report, origin)
    part.check_rows(block.rows)
    with answering(f"block {block.index}"):
        return part.commit()


def _loaded_again(job: Job, site: Site) -> Classify:
    """Load the classifier, which the trial could load. Raise ProcessDied where it fails: another process may do it."""
    try:
        return _classifier(job.entry, site.folder, job.slowness)
    except UsageError as error:
        raise ProcessDied(f"could not load the classifier: {error.message}") from error


def _classify_chunks(
    classify: Classify,
    part: PartWriter,
    chunks: Iterable[tuple[int, Chunk]],
    job: Job,
    site: Site,
    report: Report,
    origin: Origin,
) -> None:
    """Classify numbered chunks of a part. `origin` returns the file and the row (from 0) of a place in the part."""
    for number, chunk in chunks:
        with answering(f"chunk {number:,}", chunk):
            answers, failed = classify_chunk(classify, chunk.frame, site.folder, deep=part.parsed.has_values)
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
    """Make the next task load its classifier again, and close what is open."""
    _classifier.cache_clear()
    _UNPACKER.close()


def write_copy(site: Site, report: Report, file: CopiedFile, layout: Layout, rows: int | None) -> int:
    """Write the copy of a file's text, or of that of its first rows, and return its size in bytes."""
    return file.write_copy(layout, rows)


def unpack(site: Site, report: Report, file: FlowingFile, layout: Layout, order: Order) -> Unpacked:
    """Write some pieces of a file. The file stays open for the next ones."""
    return _UNPACKER.unpack(file, layout, order, site.worker)


def survey(site: Site, report: Report, pieces: list[tuple[SurveyedFile, int]], layout: Layout) -> list[Surveyed]:
    """Locate the rows in pieces of files: of one that is large, or many that are small."""
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return list(pool.map(lambda piece: piece[0].survey(piece[1], layout), pieces))


def try_out(
    site: Site,
    report: Report,
    job: Job,
    source: str,
    layout: Layout,
    rows: Rows | pd.DataFrame,
    probe: str | None = None,
) -> Trial:
    """Load the classifier and run it on the first rows of `source`. Nothing is written.

    `probe` is a file that the client has written to the output: where it cannot be found, parts would go elsewhere.
    Raises StorageError then, UsageError where the classifier cannot be loaded, and what `trial.try_out` raises.
    """
    if probe:
        share = "Give an --output that all workers and this computer share: s3://bucket/folder, or a network folder."
        storage.check_seen(probe, site.worker, job.output, share)
    classify = _classifier(job.entry, site.folder, job.slowness)
    return trial.try_out(classify, parse(rows, layout), job, source, site.folder)


def measure(site: Site, report: Report, job: Job, places: list[tuple[InputFile, Span]]) -> Measured:
    """Classify some rows from each of several places like a block, but without writing it, and measure the time.

    All places have the same text format. Raises TooManyBadRows for a bad row if none are allowed.
    """
    rows, layout = read(*zip(*places, strict=True), job.layout), places[0][0].layout_of_rows(job.layout)
    loading, first_call = (None, 0.0) if _classifier.cache_info().currsize else _load(job, site, rows, layout)
    classify = _classifier(job.entry, site.folder, job.slowness)
    wall, cpu = time.perf_counter(), time.process_time()
    part = PartWriter(job, 0, parse(rows, layout, [span for _, span in places]), site.worker)
    origin = functools.partial(_origin, places=places)
    _classify_chunks(classify, part, enumerate(cut(part.parsed, job.chunk_rows), 1), job, site, report, origin)
    with answering("the sample"):
        part.encoded()
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return Measured(len(part.parsed), seconds, cpu_seconds, loading, first_call)


def write_piece(site: Site, report: Report, file: Assembly, piece: Piece) -> str:
    """Write several parts to the file that is assembled from all parts."""
    return file.write(piece)


def _load(job: Job, site: Site, rows: Rows | pd.DataFrame, layout: Layout) -> tuple[float, float]:
    """Load the classifier and call it once with a few rows; return the seconds of both, and those of the call."""
    began = time.perf_counter()
    classify = _classifier(job.entry, site.folder, job.slowness)
    loaded = time.perf_counter()
    for chunk in itertools.islice(cut(parse(rows, layout), _WARM_UP_ROWS), 1):
        classify_chunk(classify, chunk.frame, site.folder)
    return time.perf_counter() - began, time.perf_counter() - loaded


def _origin(place: int, places: list[tuple[InputFile, Span]]) -> tuple[str, int]:
    """Return the file and the row in it (from 0) of a row among those of all places."""
    for file, span in places:
        if place < span.rows:
            return file.url, span.first_row + place
        place -= span.rows
    raise IndexError(place)
