"""Write all rows of a run, in order, to a stream, in the format of its parts or in another one."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from ..parts.columns import Columns
from ..parts.formats import format_of_file
from ..parts.part_format import PartFormat
from ..parts.run_folder import part_name

if TYPE_CHECKING:
    from .result import Result


def line_before_parts(result: "Result", *, header: bool) -> bytes:
    """Return what is to stand before all parts: the columns' names, as a part, unless the first part has them."""
    if any(map(result.begins_with_names, result.receipts[:1])):
        return b""
    return _beginning(result, result.part_format, header=header, follows=bool(result.receipts))


def _beginning(result: "Result", target: PartFormat, *, header: bool, follows: bool) -> bytes:
    """Return the columns' names, if they are wanted, or, if no part follows, a part without rows.

    A compressed file without a byte is not valid.
    """
    names = target.header(result.columns) if header and result.columns else b""
    return names if names or follows else target.encode([], None, header=False)


def write_rows(result: "Result", stream: BinaryIO, name: str, *, header: bool | None) -> None:
    """Write all rows of a run to a stream, in the format of a file name, as `Result.write_to` does."""
    target = format_of_file(name)
    if not target.joins:
        _write_parquet(result, stream)
        return
    header = result.manifest["header"] if header is None else header
    stream.write(_beginning(result, target, header=header, follows=result.rows > 0))
    for member in _members(result, target):
        stream.write(member)


def _write_parquet(result: "Result", stream: BinaryIO) -> None:
    from .frames import join_parquet, write_parquet

    with_rows = [receipt for receipt in result.receipts if receipt.rows]
    if result.part_format.joins or not with_rows:
        write_parquet(stream, map(result.part, with_rows), result.columns)
    else:
        names = [part_name(receipt.index, result.part_format.name) for receipt in with_rows]
        reads = [partial(result.stored, receipt) for receipt in with_rows]
        join_parquet(stream, list(zip(map(result.folder.path, names), reads, strict=True)))


def _members(result: "Result", target: PartFormat) -> Iterator[bytes]:
    """The rows of each part, in order, without a header, as parts of a format: those of the run's own format are
    copied as they are.
    """
    columns = Columns(tuple(result.columns), result.manifest["kinds"])
    for receipt, data in zip(result.receipts, result.read_ahead(result.stored), strict=True):
        header = result.begins_with_names(receipt)
        if target is result.part_format and not header:
            yield data
        elif receipt.rows:
            yield target.convert(data, result.part_format, columns, header=header)
