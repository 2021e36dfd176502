"""The tasks of a classifier process: `classify_block`, which does nearly all of the work, and its preparations.

The preparations decompress a file, survey a piece of it, and try the classifier. Each task takes and returns small
values, and reports its progress by calling `report(rows, bad_rows)`.
"""

import functools

from .classifier import bundle, trial
from .classifier.contract import Classify, answering, classify_chunk
from .classifier.job import Job, Report, Site, Trial
from .parts.receipts import Receipt
from .parts.writer import PartWriter
from .rows.borders import Piece, Rows
from .rows.chunks import cut, parse
from .rows.layouts import Layout
from .rows.source import Block, InputFile


def classify_block(site: Site, report: Report, job: Job, file: InputFile, block: Block) -> Receipt:
    """Read one block, classify its chunks and write one part.

    Raise TooManyBadRows as soon as the block alone has more bad rows than the run may have.
    """
    classify = _classifier(job.entry, site.folder, job.slowness)
    parsed = file.read(block, file.layout_of_rows(job.layout))
    part = PartWriter(job, block.index, parsed, site.worker)
    first_chunk = block.first_row // job.chunk_rows + 1
    for number, chunk in enumerate(cut(parsed, job.chunk_rows), first_chunk):
        with answering(f"chunk {number:,}", chunk):
            answers, failed = classify_chunk(classify, chunk.frame, site.folder)
            for answer in answers:
                part.write(answer)
        for place, raised in chunk.bad_rows(failed):
            part.quarantine(file.url, parsed.bad_row(place, raised, block.first_row))
        part.check_bad_rows(job.max_bad_rows)
        report(part.rows, len(part.bad_rows))
    part.check_rows(block.rows)
    with answering(f"block {block.index}"):
        return part.commit()


@functools.cache
def _classifier(entry: str, folder: str, slowness: int | None) -> Classify:
    """Return the classifier, which is loaded once in each process."""
    return bundle.load(entry, folder, slowness)


def forget_classifiers() -> None:
    """Make the next task load its classifier again."""
    _classifier.cache_clear()


def write_copy(site: Site, report: Report, file: InputFile, encoding: str) -> int:
    """Write the decompressed copy of a file and return its size in bytes."""
    return file.write_copy(encoding)


def survey(site: Site, report: Report, file: InputFile, start: int, delimiter: str) -> Piece:
    """Locate the rows in one piece of a file."""
    return file.survey(start, delimiter)


def try_out(site: Site, report: Report, job: Job, source: str, layout: Layout, text: bytes) -> Trial:
    """Load the classifier and run it on `text`, the first rows of `source` as CSV. Nothing is written.

    Raise UsageError if it cannot be loaded, and the same errors as `trial.try_out`.
    """
    classify = _classifier(job.entry, site.folder, job.slowness)
    parsed = parse(Rows.of(text, layout.delimiter), layout)
    return trial.try_out(classify, parsed, job, source, site.folder)
