"""The registered kinds of inputs, and the source made from the names that the user gives."""

import functools
import itertools
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from .. import generate
from ..errors import SourceError, UsageError
from .csv_files import CsvFile
from .frame_input import FrameInput
from .generated import GeneratedRows
from .layouts import Layout, check_layout
from .source import InputFile, Source

KINDS: list[type[InputFile]] = [GeneratedRows, CsvFile]  # the first that accepts a name reads it
_INSPECTED_AT_ONCE = 16  # files whose first bytes are read at the same time


def register(kind: type[InputFile]) -> None:
    """Add a kind of input before the registered ones. Its module must be importable on the workers."""
    KINDS.insert(0, kind)


def generated(rows: int, seed: int = 0) -> Source:
    """Return a source of `rows` synthetic rows."""
    return Source(Layout(columns=generate.COLUMNS), (GeneratedRows(rows, seed),))


def of_frame(frame: Any, copies: str) -> Source:
    """Return a source of the rows of a DataFrame or an Arrow table; `copies` is the folder they are written to."""
    file, columns = FrameInput.of(frame, Layout(), copies)
    return Source(Layout(columns=columns), (file,))


def look(names: Iterable[str], layout: Layout, copies: str) -> Source:
    """Return the source that paths, URLs and globs name, in the order given, with the columns of the common header.

    `copies` is the folder for decompressed copies. Raise StorageError for a file that cannot be read, UsageError for an
    unusable layout, SourceError for different headers.
    """
    check_layout(layout)
    named = [(kind, url) for name in names for kind in [_kind_of(name)] for url in kind.expand(name)]
    if repeated := sorted(url for url, times in Counter(url for _, url in named).items() if times > 1):
        raise UsageError(f"{repeated[0]} is named twice.", "Name each file once.")
    with ThreadPoolExecutor(_INSPECTED_AT_ONCE) as pool:
        inspect = functools.partial(_inspect, layout=layout, copies=copies)
        inspected = list(pool.map(inspect, named, itertools.count()))
    headers = [(file, columns) for file, columns in inspected if columns]
    for file, columns in headers[1:]:
        if columns != headers[0][1]:
            raise SourceError(
                f"{headers[0][0].url} and {file.url} have different headers: "
                f"{_joined(headers[0][1])} and {_joined(columns)}.",
                "Classify files with different headers in separate runs.",
            )
    columns = headers[0][1] if headers else ()
    return Source(replace(layout, columns=columns), tuple(file for file, _ in inspected))


def _kind_of(name: str) -> type[InputFile]:
    return next(kind for kind in KINDS if kind.accepts(name))


def _inspect(
    kind_and_url: tuple[type[InputFile], str], number: int, layout: Layout, copies: str
) -> tuple[InputFile, tuple]:
    kind, url = kind_and_url
    return kind.look(url, number, layout, copies)


def _joined(columns: tuple) -> str:
    return ",".join(map(str, columns))
