"""Read the rows of several spans, perhaps of several files, as if they were in one file."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from .blocks import Span
from .borders import Rows
from .layouts import Layout
from .source import InputFile

if TYPE_CHECKING:
    import pandas as pd

FILES_AT_ONCE = 16


def read(files: Sequence[InputFile], spans: Sequence[Span], layout: Layout) -> "Rows | pd.DataFrame":
    """Return the rows of spans, one of each file: text, or a frame if they have types.

    The layout is that of the source; the files have the same one.

    Raise SourceError if a file has changed since the survey, StorageError if it cannot be read.
    """
    layouts = [file.layout_of_rows(layout) for file in files]
    if len(files) == 1:
        return files[0].read(spans[0], layouts[0])
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        several = list(pool.map(lambda file, *of: file.read(*of), files, spans, layouts))
    return Rows.joined(several) if isinstance(several[0], Rows) else _concat(several)


def _concat(frames: "list[pd.DataFrame]") -> "pd.DataFrame":
    import pandas as pd

    return pd.concat(frames)


def size_of(rows: "Rows | pd.DataFrame") -> int:
    """Return the bytes of rows in memory."""
    return len(rows.text) if isinstance(rows, Rows) else int(rows.memory_usage(deep=True).sum())
