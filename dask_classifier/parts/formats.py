"""The formats of parts, by name."""

from collections.abc import Callable

from ..errors import UsageError
from .compression import gunzip, gunzip_beginning, gzip_member, unzstd, unzstd_beginning, zstd_frame
from .csv_parts import CsvParts
from .jsonl_parts import JsonLinesParts
from .parquet_parts import ParquetParts
from .part_format import PartFormat

CSV = CsvParts("csv", bytes, bytes, bytes)  # only for fetched files, not for parts
CSV_GZ = CsvParts("csv.gz", gzip_member, gunzip, gunzip_beginning)
CSV_ZST = CsvParts("csv.zst", zstd_frame, unzstd, unzstd_beginning)
_ALL = (CSV_GZ, CSV_ZST, ParquetParts(), JsonLinesParts())
FORMATS: dict[str, PartFormat] = {part_format.name: part_format for part_format in _ALL}

# suffixes of formats that cannot be written: a file with such a name must not have another format
_NOT_WRITTEN = {"bz2", "xz", "zip", "7z", "lz4", "tsv", "tab", "json", "jsonl", "ndjson", "xls", "xlsx", "ods"}
_NOT_WRITTEN |= {"feather", "arrow", "ipc", "orc", "avro", "pkl", "pickle", "h5", "hdf5", "sqlite", "db", "html", "xml"}


def compressor(file: str) -> Callable[[bytes], bytes]:
    """Return the function that compresses the pieces of a file, by its suffix: .gz, .zst, or none."""
    return {"gz": gzip_member, "zst": zstd_frame}.get(file.lower().rpartition(".")[2], bytes)


def format_of_file(name: str) -> PartFormat:
    """Return the format that the suffixes of a file name; CSV if they name none.

    Raise UsageError for suffixes of formats that cannot be written.
    """
    suffixes = name.lower().rpartition("/")[2].split(".")[1:]
    for known in (".".join(suffixes[-2:]), *suffixes[-1:]):
        if known in FORMATS:
            return FORMATS[known]
    compressed = bool(suffixes) and suffixes[-1] in {"gz", "zst"}
    inner = suffixes[-2:-1] if compressed else suffixes[-1:]
    if inner and (inner[0] in _NOT_WRITTEN or (compressed and inner[0] in FORMATS)):
        raise UsageError(
            f"Cannot write {name}: .{'.'.join(suffixes[-2 if compressed else -1 :])} is not a supported format.",
            f"Choose .csv, {', '.join(f'.{known}' for known in list(FORMATS)[:-1])} or .{list(FORMATS)[-1]}.",
        )
    return FORMATS[f"csv.{suffixes[-1]}"] if compressed else CSV
