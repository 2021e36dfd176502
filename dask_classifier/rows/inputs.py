"""The registered kinds of inputs, and the source made from the names that the user gives."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from .. import generate, storage
from ..errors import UsageError
from .csv_files import CsvFile
from .frame_input import FrameInput
from .generated import GeneratedRows
from .json_lines import JsonLinesFile
from .layouts import Layout, check_layout, check_wanted
from .parquet_files import ParquetFile
from .source import InputFile, NamedInput, Source, StoredFile, check_columns

KINDS: list[type[NamedInput]] = []  # the first that accepts a name reads it; other names are those of files
FILE_KINDS: list[type[StoredFile]] = [
    ParquetFile,
    JsonLinesFile,
    CsvFile,
]  # the first that accepts a file's name reads it
_INSPECTED = 16  # files that are inspected at once by the client; the survey inspects the rest, on the workers


def register(kind: type[NamedInput] | type[StoredFile]) -> None:
    """Add a kind of input before the registered ones. Its module must be importable on the workers."""
    if issubclass(kind, StoredFile):
        FILE_KINDS.insert(0, kind)
    else:
        KINDS.insert(0, kind)


def generated(rows: int, seed: int = 0) -> Source:
    """Return a source of `rows` synthetic rows."""
    return Source(Layout(columns=generate.COLUMNS), (GeneratedRows(rows, seed),))


def of_frame(frame: Any, copies: str) -> Source:
    """Return a source of the rows of a DataFrame or an Arrow table; `copies` is the folder they are written to."""
    file, columns = FrameInput.of(frame, Layout(), copies)
    return Source(Layout(columns=columns), (file,))


def look(names: Iterable[str], layout: Layout, copies: str) -> Source:
    """Return the source that paths, URLs, globs and folders name, in the order given, with the columns of its files.

    Of many files, the first ones are inspected. `copies` is the folder for decompressed copies. Raise StorageError for
    a file that cannot be read, UsageError for an unusable layout, SourceError for different headers.
    """
    check_layout(layout)
    files = [file for name in names for file in _named(name, layout, copies)]
    if repeated := sorted(url for url, times in Counter(file.url for file in files).items() if times > 1):
        raise UsageError(f"{repeated[0]} is named twice.", "Name each file once.")
    columns, with_rows = (), []
    for first in range(0, len(files), _INSPECTED):
        with ThreadPoolExecutor(_INSPECTED) as pool:
            inspected = list(pool.map(lambda file: file.inspect(layout), files[first : first + _INSPECTED]))
        files[first : first + _INSPECTED] = [file for file, _ in inspected]
        for file, others in inspected:
            check_columns(files, columns, file, others)
            columns = columns or others
            with_rows += [file] if others else []
        if columns:
            break
    _check_keys(with_rows, layout, columns)
    return Source(replace(layout, columns=columns), tuple(files))


def _check_keys(files: list[InputFile], layout: Layout, columns: tuple) -> None:
    """Raise UsageError if all files are JSON Lines, and no first row has a column that the user names.

    Other files were checked when they were inspected.
    """
    if not files or not all(isinstance(file, JsonLinesFile) for file in files):
        return
    keys = () if layout.wanted else columns
    for file in files:
        keys = tuple(dict.fromkeys([*keys, *file.keys()])) if set(layout.wanted) - set(keys) else keys
    check_wanted(layout, keys, files[0].url)


def with_types(source: Source) -> Source:
    """Return the source with types of columns that are guessed from rows all over it."""
    from .inference import infer_types

    return replace(source, layout=infer_types(source))


def _named(name: str, layout: Layout, copies: str) -> list[InputFile]:
    """Return the inputs that a name stands for, not inspected."""
    for kind in KINDS:
        if kind.accepts(name):
            return list(kind.named(name))
    return [_kind_of(url).found(url, identity, layout, copies) for url, identity in storage.listed(name)]


def _kind_of(url: str) -> type[StoredFile]:
    return next(kind for kind in FILE_KINDS if kind.accepts(url))
