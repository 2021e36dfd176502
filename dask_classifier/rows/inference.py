"""Guess the types of columns of text from rows all over the source; blocks check them later, in every row.

A type is chosen only if each value of the sample is written as that type usually is. 007 remains text, since a number
would lose its zeros, and so do whole numbers of more than 18 digits. The same holds for the values elsewhere: 007 in a
column of whole numbers is a bad row.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import DaskClassifyError, SourceError
from .borders import Rows
from .layouts import Layout
from .source import Source
from .types import WRITTEN, converted, is_missing

if TYPE_CHECKING:
    import pandas as pd

PLACES = 20  # in which rows are read
_PLACE_ROWS = 500
_LEAST_WELL_FORMED = 0.9  # of the rows of a place


def infer_types(source: Source) -> Layout:
    """Return the layout with types of columns: those that it has, and guesses for the others that are not text.

    The index remains text. Numbers and booleans are nullable, since values may be missing where the sample has none.
    """
    layout, guessed = source.layout, {}
    columns = layout.wanted or layout.columns
    others = {layout.index_of(columns), *dict(layout.types)}
    samples = list(_samples(source))
    frames = [frame for frame in samples if frame is not None]
    if samples and not frames:
        raise SourceError(
            "Types cannot be guessed: there are too many malformed rows.", "Give the columns types with --dtype."
        )
    for name in columns:
        if name not in others and (kind := _kind(name, frames, layout)):
            guessed[name] = kind
    return replace(layout, types=(*layout.types, *guessed.items()), guessed=tuple(guessed))


def _samples(source: Source) -> "Iterator[pd.DataFrame | None]":
    """Yield rows as frames of text, from places that are evenly spread over the bytes of the source.

    Malformed rows are left out. Where there are many, the place is in the middle of quotes: it is None.
    """
    from .chunks import well_formed

    for file, rows in _places(source):
        if isinstance(rows, Rows) and len(rows):
            frame = well_formed(rows, file.layout_of_rows(source.layout))
            yield frame if len(frame) >= _LEAST_WELL_FORMED * len(rows) else None


def _places(source: Source) -> Iterator[tuple]:
    sizes = [max(1, file.size) for file in source.files]
    width = sum(sizes) / PLACES
    wanted, before = [(place + 0.5) * width for place in range(1, PLACES)], 0
    yield source.files[0], source.files[0].first_rows(_PLACE_ROWS, source.layout)
    for file, size in zip(source.files, sizes, strict=True):
        inside = [position for position in wanted if before <= position < before + size]
        for position in inside[:1] if file.is_packed else inside:  # a packed file has only its beginning to offer
            try:
                yield file, file.rows_near(int(position - before), _PLACE_ROWS, source.layout)
            except DaskClassifyError:  # reported where it belongs, when the run reads all rows
                continue
        before += size


def _kind(name: str | int, frames: "list[pd.DataFrame]", layout: Layout) -> str | None:
    """Return the type that fits all values of a column, or None: it remains text."""
    values = {value for frame in frames for value in frame[name][~is_missing(frame[name], layout)]}
    fitting = (kind for kind, pattern in WRITTEN.items() if all(map(pattern.fullmatch, values)))  # the first one
    kind = next(fitting, None) if values else None
    return kind if kind and _is_convertible(values, kind) else None


def _is_convertible(values: set[str], kind: str) -> bool:
    """Return whether all values are of a type, and not only written like it, as is 2026-02-30."""
    import pandas as pd

    try:
        converted(pd.DataFrame({"values": pd.Series(sorted(values), dtype="str")}), Layout(types=(("values", kind),)))
    except ValueError:
        return False
    return True
