"""JSON Lines as inputs: one JSON object in each line, whose values a classifier gets as text.

The columns are the keys of the first rows, in the order in which they appear. Lines are located and read like rows of
CSV, but a line feed always ends one, since JSON has none within a value.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from ..errors import SourceError
from ..storage import Identity
from .borders import Piece, Rows, Scan, lines_of, survey_lines
from .csv_files import MARK_SPACING, CsvFile
from .layouts import HEAD_BYTES, JSON_LINES, Layout, first_row_too_long, skip_mark
from .source import InputFile

if TYPE_CHECKING:
    import pandas as pd

_SUFFIX = re.compile(r"\.(jsonl|ndjson)(\.(gz|bz2|zst|xz))?$", re.IGNORECASE)
_FIRST_ROWS = 1000  # whose keys are the columns
_BLANKS = " \t\r\n"  # all that JSON knows


class _Number(str):
    """A number with the digits that the file has."""


_TEXT_NUMBERS = {"parse_float": _Number, "parse_int": _Number, "parse_constant": _Number}


@dataclass(frozen=True)
class JsonLinesFile(CsvFile):
    """A file of JSON objects, each in a line of its own, in UTF-8."""

    @classmethod
    def accepts(cls, url: str) -> bool:
        """Return whether the name ends with .jsonl or .ndjson, perhaps followed by the suffix of a compression."""
        return _SUFFIX.search(url) is not None

    @classmethod
    def found(cls, url: str, identity: Identity, layout: Layout, copies: str) -> Self:
        """Return a file that is not inspected: JSON is always in UTF-8."""
        return super().found(url, identity, replace(layout, encoding="utf-8"), copies)

    def _packed(self, kind: str | None, layout: Layout) -> Self:
        return super()._packed(kind, replace(layout, encoding="utf-8"))

    def layout_of_rows(self, layout: Layout) -> Layout:
        """Return the format of lines with JSON."""
        return replace(layout, encoding="utf-8", format=JSON_LINES)

    def keys(self) -> tuple[str, ...]:
        """Return the keys of the first rows."""
        return self._keys(self._first_lines(self._head()[0]))

    def _inspected(self, head: bytes, layout: Layout) -> tuple[Self, tuple]:
        """Return the file and its columns, of which its first rows, and all of its rows, may lack some."""
        lines = self._first_lines(head)
        keys = self._keys(lines)  # also if they are not needed: it refuses what is not JSON
        return replace(self, data_start=skip_mark(head)), (layout.wanted or keys) if lines else ()

    def _first_lines(self, head: bytes) -> Rows:
        lines = Rows.of_lines(head[skip_mark(head) :])
        whole = len(lines) - (len(head) >= HEAD_BYTES)  # the last one may be truncated
        if lines and not whole:
            raise first_row_too_long(self.url)
        return lines.part(0, min(_FIRST_ROWS, whole)) if lines else lines

    def fits(self, first: InputFile, expected: tuple, columns: tuple) -> bool:
        """Return whether there are no other keys: some may be missing, and they may have another order."""
        return set(columns) <= set(expected)

    def _keys(self, lines: Rows) -> tuple[str, ...]:
        """Return the keys of all objects. Raise SourceError if a line has none."""
        keys: dict[str, None] = {}
        for number in range(len(lines)):
            try:
                for line in _lines(lines.part(number, number + 1).text):
                    keys |= dict.fromkeys(_object(line))
            except ValueError as error:
                if number == 0:
                    raise SourceError(
                        f"{self.url} is not JSON Lines: row 1 is {error}.",
                        'Each line must be a JSON object in UTF-8, such as {"id": 1}; pandas writes such files with '
                        "df.to_json(file, orient='records', lines=True).",
                    ) from error
        return tuple(keys)

    @staticmethod
    def _rows_of(text: bytes, layout: Layout) -> Rows:
        return Rows.of_lines(text)

    @staticmethod
    def _scan(text: bytes, inside: bool, layout: Layout) -> Scan:
        return Scan(lines_of(text), False)

    @staticmethod
    def _survey(text: bytes, start: int, layout: Layout) -> Piece:
        return survey_lines(text, start, MARK_SPACING)


def json_frame(text: bytes, columns: Sequence[str], *, others: bool) -> "pd.DataFrame":
    """Return the values of JSON Lines as text.

    Numbers keep their digits, null and missing keys are the empty text, and nested values remain JSON. Raise ValueError
    for what is not a JSON object and, unless `others` is true, for keys that are not among the columns.
    """
    import pandas as pd

    known, objects = set(columns), []
    for line in _lines(text):
        row = _object(line)
        if not others and (unknown := row.keys() - known):
            raise ValueError(f"the key {min(unknown)!r} is not among those of the first rows")
        objects.append({name: _text(value) for name, value in row.items() if name in known})
    values = {name: [row.get(name, "") for row in objects] for name in columns}
    return pd.DataFrame(values, columns=list(columns), dtype="str")


def _lines(text: bytes) -> list[str]:
    return [line for line in text.decode().split("\n") if line.strip(_BLANKS)]


def _object(line: str) -> dict[str, object]:
    try:
        row = json.loads(line, **_TEXT_NUMBERS)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not valid JSON: nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    return row


def _text(value: object) -> str:
    if isinstance(value, str):
        return str(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value)
    try:
        return _json(value)
    except RecursionError:
        raise ValueError("not valid JSON: nested too deeply") from None


def _json(value: object) -> str:
    """Return a value as `json.dumps` writes it, but numbers with the digits that the file has."""
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_json, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_json(key)}: {_json(item)}' for key, item in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)
