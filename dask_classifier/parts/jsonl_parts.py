"""Parts as JSON Lines: one JSON object for each row, compressed with gzip."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import WrongAnswer
from .compression import gunzip, gunzip_beginning, gzip_member
from .part_format import PartFormat

if TYPE_CHECKING:
    import pandas as pd

    from ..rows.chunks import Parsed
    from .columns import Columns

_BEGINNING_BYTES = 512 * 2**10  # of a stored part, for its first values
_WORDS = {"True": "true", "False": "false", "": "null"}  # of numbers and booleans, in CSV and in JSON


class JsonLinesParts(PartFormat):
    """Objects whose keys are the columns' names: text as strings, numbers and booleans as such, missing values as null.

    Numbers are written with the digits that CSV has, so none is rounded; infinity, which JSON does not know, is a
    string.
    """

    name = "jsonl.gz"

    def encode(self, frames: "list[pd.DataFrame]", parsed: "Parsed | None", *, header: bool) -> bytes:
        """Return the rows as JSON, one in a line."""
        try:
            return gzip_member("".join(map(_lines, frames)).encode())
        except UnicodeEncodeError as error:
            raise WrongAnswer.not_unicode(error) from error

    def rows(self, data: bytes, *, header: bool) -> int:
        """Count the lines: JSON has no line break in a value."""
        return gunzip(data).count(b"\n")

    def content(self, data: bytes) -> bytes:
        """Return the JSON text."""
        return gunzip(data)

    def text(self, data: bytes, *, header: bool) -> bytes:
        """Return the rows as pandas writes their values as CSV."""
        objects = _objects(gunzip(data))
        return _frame(objects, list(objects[0]) if objects else []).to_csv(**_PLAIN_CSV).encode()

    def read(self, data: bytes, columns: "Columns", *, header: bool) -> "pd.DataFrame":
        """Read the rows with the types of the classifier's answers."""
        return columns.typed(_frame(_objects(gunzip(data)), columns.unique))

    def first_values(
        self, url: str, size: int, names: Sequence[str], places: Sequence[int], most: int, *, header: bool
    ) -> dict[int, list[str]]:
        """Read the beginning of the part; a row that is cut off there is left out."""
        from .. import storage

        text = gunzip_beginning(storage.read(url, 0, min(size, _BEGINNING_BYTES)))
        rows = [list(row.values()) for row in _objects(text[: text.rfind(b"\n") + 1])[:most]]
        return {place: [_text(row[place]) for row in rows] for place in places}


_PLAIN_CSV = {"index": False, "header": False, "lineterminator": "\n"}


def _lines(frame: "pd.DataFrame") -> str:
    """The rows of a frame as lines of JSON."""
    from .columns import Columns

    rows = frame.reset_index(allow_duplicates=True)
    names = Columns((str(frame.index.name), *map(str, frame.columns)), "").unique
    keys = [json.dumps(name, ensure_ascii=False) for name in names]
    values = [_values(rows.iloc[:, place]) for place in range(rows.shape[1])]
    return "".join(
        [
            "{" + ", ".join(f"{key}: {value}" for key, value in zip(keys, row, strict=True)) + "}\n"
            for row in zip(*values, strict=True)
        ]
    )


def _values(column: "pd.Series") -> list[str]:
    """The values of a column as JSON, from their text in CSV."""
    texts = column.tolist() if column.dtype == "str" else _csv_values(column)
    missing = column.isna().tolist()
    if column.dtype.kind in "iufb":
        return [_WORDS.get(text) or (json.dumps(text) if text.endswith("inf") else text) for text in texts]
    return ["null" if gone else json.dumps(text, ensure_ascii=False) for text, gone in zip(texts, missing, strict=True)]


def _csv_values(column: "pd.Series") -> list[str]:
    """The text of each value, as pandas writes it."""
    from ..rows.tables import with_objects
    from .columns import read_csv

    return read_csv(with_objects(column.to_frame("value")).to_csv(**_PLAIN_CSV).encode(), ["value"])["value"].tolist()


def _objects(text: bytes) -> list[dict[str, str | bool | None]]:
    """The rows in JSON Lines; numbers stay the text that they are."""
    return [json.loads(line, parse_float=str, parse_int=str) for line in text.decode().split("\n") if line]


def _frame(objects: list[dict[str, str | bool | None]], names: list[str]) -> "pd.DataFrame":
    """Rows as text; null is a missing value."""
    import pandas as pd

    values = {name: [row[name] if row[name] is None else _text(row[name]) for row in objects] for name in names}
    return pd.DataFrame(values, columns=names, dtype="str")


def _text(value: str | bool | None) -> str:
    return "" if value is None else str(value)
