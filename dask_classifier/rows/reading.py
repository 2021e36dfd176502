"""Read the rows of several spans, perhaps of several files, as if they were in one file."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from .blocks import Span
from .borders import Rows
from .layouts import Layout
from .source import InputFile

FILES_AT_ONCE = 16


def read(files: Sequence[InputFile], spans: Sequence[Span], layout: Layout) -> Rows:
    """Return the rows of spans, one of each file. The layout is that of the source; the files have the same one.

    Raise SourceError if a file has changed since the survey, StorageError if it cannot be read.
    """
    layouts = [file.layout_of_rows(layout) for file in files]
    if len(files) == 1:
        return files[0].read(spans[0], layouts[0])
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return Rows.joined(list(pool.map(lambda file, *of: file.read(*of), files, spans, layouts)))
