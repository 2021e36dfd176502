"""Recognize compressed input, and input that is not CSV, by its first bytes.

Parsed as CSV, it would be one long row of binary data.
"""

import re

from ..errors import SourceError

# magic numbers from libmagic and the specifications of the formats
_NOT_CSV = (
    (b"PAR1", "a Parquet file", "Give the file's name the suffix .parquet."),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "Extract the CSV file, or save the sheet as CSV."),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook", "Save the sheet as CSV."),
    (b"ARROW1", "an Arrow or Feather file", "Convert it: pandas.read_feather(file).to_csv('in.csv', index=False)."),
    (b"SQLite format 3", "an SQLite database", "Export the table as CSV."),
    (b"ORC", "an ORC file", "Convert it: pandas.read_orc(file).to_csv('in.csv', index=False)."),
    (b"Obj\x01", "an Avro file", "Convert it to CSV."),
)
_COMPRESSIONS = {b"\x1f\x8b\x08": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz"}
_BINARY = re.compile(rb"[\0-\x08\x0e-\x1f]")  # in no CSV header, even if it begins with a magic number: ORCID,name
_BEGINNING = 512  # bytes


def refuse_what_is_not_csv(head: bytes, url: str) -> None:
    """Raise SourceError if the first bytes are those of another format."""
    for magic, name, hint in _NOT_CSV:
        if _begins_with(head, magic):
            raise SourceError(f"{url} is {name}, not CSV.", hint)


def compression_of(head: bytes) -> str | None:
    """Return the compression of a file by its first bytes: gzip, bz2, zstd, xz, or None."""
    return next((name for magic, name in _COMPRESSIONS.items() if _begins_with(head, magic)), None)


def _begins_with(head: bytes, magic: bytes) -> bool:
    return head.startswith(magic) and _BINARY.search(head, 0, _BEGINNING) is not None
