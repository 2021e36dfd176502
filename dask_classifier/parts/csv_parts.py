"""Parts as compressed CSV."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .part_format import PartFormat

if TYPE_CHECKING:
    import pandas as pd

    from ..rows.chunks import Parsed
    from .columns import Columns

_BEGINNING_BYTES = 512 * 2**10  # read from a stored part for its first values
_CR = "\N{SYMBOL FOR CARRIAGE RETURN}"


@dataclass(frozen=True)
class CsvParts(PartFormat):
    """CSV, byte for byte as pandas writes it, compressed into one gzip member or zstd frame."""

    name: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]
    decompress_beginning: Callable[[bytes], bytes]

    def encode(self, frames: "list[pd.DataFrame]", parsed: "Parsed | None", *, header: bool) -> bytes:
        """Return the rows as `to_csv` writes them, compressed."""
        from .csv_text import to_csv  # imports pandas

        return self.compress(to_csv(frames, parsed, header=header))

    def convert(self, data: bytes, written_as: PartFormat, columns: "Columns", *, header: bool) -> bytes:
        """Return the rows as CSV, compressed."""
        return self.compress(written_as.text(data, header=header))

    def header(self, names: Sequence[str]) -> bytes:
        """Return the compressed header line."""
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(names)
        return self.compress(line.getvalue().encode())

    def rows(self, data: bytes, *, header: bool) -> int:
        """Count the rows; lines would not do, because a value may contain line breaks."""
        from ..rows.borders import count_rows  # imports numpy

        return count_rows(self.decompress(data)) - header

    def content(self, data: bytes) -> bytes:
        """Return the CSV text, including a header."""
        return self.decompress(data)

    def text(self, data: bytes, *, header: bool) -> bytes:
        """Return the CSV text without a header."""
        text = self.decompress(data)
        if not header:
            return text
        from ..rows.borders import scan_part

        starts = scan_part(text)
        return text[starts[1] :] if len(starts) > 1 else b""

    def read(self, data: bytes, columns: "Columns", *, header: bool) -> "pd.DataFrame":
        """Parse the CSV text, with numbers and booleans in the columns that had them."""
        from .columns import read_csv

        return columns.typed(read_csv(self.decompress(data), columns.unique, header=header))

    def first_values(
        self, url: str, size: int, names: Sequence[str], places: Sequence[int], most: int, *, header: bool
    ) -> dict[int, list[str]]:
        """Read the values from the beginning of the part, without a row that is truncated there."""
        from .. import storage
        from ..rows.borders import scan_part

        text = self.decompress_beginning(storage.read(url, 0, min(size, _BEGINNING_BYTES)))
        starts = [*scan_part(text).tolist(), *([len(text)] if size <= _BEGINNING_BYTES else [])]
        if len(starts) < header + 2:
            return {place: [] for place in places}
        return _values(text[starts[header] : starts[min(header + most, len(starts) - 1)]], len(names), places)


def _values(text: bytes, count: int, places: Sequence[int]) -> dict[int, list[str]]:
    """Return the values of some of the `count` columns of CSV that pandas has written."""
    import pyarrow as pa  # slow to import
    import pyarrow.csv as pa_csv

    names = [str(place) for place in range(count)]
    text = text.replace(b"\r", _CR.encode())  # pandas does not quote a CR in a value; pyarrow would end the row
    table = pa_csv.read_csv(
        io.BytesIO(text),
        # a row must not be longer than a block, so one block has to hold all rows
        pa_csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
        pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.large_string()),
            include_columns=[names[place] for place in places],
            strings_can_be_null=False,
        ),
    )
    return {place: column.to_pylist() for place, column in zip(places, table.columns, strict=True)}
