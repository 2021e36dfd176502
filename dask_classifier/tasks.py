"""The tasks of a classifier process: `classify_block`, which does nearly all of the work, and its preparations.

The preparations decompress a file, survey a piece of it, and try the classifier. Each task takes and returns small
values, and reports its progress by calling `report(rows, bad_rows)`.
"""

import functools
import socket

from . import storage
from .classifier import bundle, trial
from .classifier.contract import Classify, answering, classify_chunk
from .classifier.job import Job, Report, Site, Trial
from .errors import StorageError
from .parts.receipts import Receipt
from .parts.writer import PartWriter
from .rows.borders import Piece, Rows
from .rows.chunks import cut, parse
from .rows.layouts import Layout
from .rows.source import Block, InputFile, SurveyedFile


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
