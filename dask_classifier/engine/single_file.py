"""One file with all rows of a run, written by the workers: from its parts if it has their format, else converted."""

from collections.abc import Iterator
from contextlib import contextmanager

from .. import storage
from ..classifier.job import WRITE_PIECE, Report, Site
from ..parts import assembly
from ..parts.assembly import Assembly
from ..parts.formats import format_of_file
from ..runs.result import Result, open_run
from ..runs.writing import line_before_parts
from .executors import Executor
from .outcomes import values

CONVERT, SEE = f"{__name__}:convert", f"{__name__}:see"
_WRITING = "The file with all rows could not be written"


def write_single_file(result: Result, url: str, executor: Executor, *, header: bool | None = None) -> int:
    """Write all rows of a run, in order, to one file, which appears when it is complete; return its size in bytes.

    `header` is whether CSV begins with the columns' names. Default: as in the first part. Raise StorageError if
    something cannot be read or written, and DamagedRun for a part that is not that of its receipt.
    """
    target, begins = format_of_file(url), any(map(result.begins_with_names, result.receipts[:1]))
    header = result.manifest["header"] if header is None else header
    _check_shared(result, url, executor)
    if target is not result.part_format or not target.joins or begins > header:
        ((_, size),) = values(executor.each(CONVERT, [(result.output, url, header)]), _WRITING)
        return size
    before = line_before_parts(result, header=header)
    size = len(before) + result.manifest["bytes"]
    with _aborted_if_it_fails(assembly.begin(url, size)) as file:
        pieces = assembly.pieces_of(result.folder, target.name, result.receipts, file.least_bytes, before)
        written = dict(values(executor.each(WRITE_PIECE, ((file, piece) for piece in pieces)), _WRITING))
        file.finish([tag for _, tag in sorted(written.items())])
    return size


@contextmanager
def _aborted_if_it_fails(file: Assembly) -> Iterator[Assembly]:
    try:
        yield file
    except BaseException:
        file.abort()
        raise


def _check_shared(result: Result, url: str, executor: Executor) -> None:
    """Raise StorageError if workers would write the file where this computer does not see it."""
    folder = url.rpartition("/")[0]
    if folder == result.output or not storage.is_local(url) or not executor.is_remote:
        return
    with storage.probe(folder) as probe:
        list(values(executor.each(SEE, [(probe, url)]), _WRITING))


def see(site: Site, report: Report, probe: str, url: str) -> None:  # a task
    """Raise StorageError if a file that the client has written cannot be found."""
    storage.check_seen(probe, site.worker, url, "Give a URL in S3, or use --cluster local.")


def convert(site: Site, report: Report, output: str, url: str, header: bool) -> int:  # a task
    """Write all rows of a run to a file of another format, and return its size in bytes."""
    return open_run(output).fetch(url, header=header)
