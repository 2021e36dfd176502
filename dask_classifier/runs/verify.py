"""Verify a complete run: read every part again and compare it with the manifest."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import storage, templating
from ..errors import DamagedRun
from ..parts.formats import CSV_GZ
from ..parts.receipts import Receipt
from ..parts.run_folder import MISSING, PLAN, part_name, quarantine_name, receipt_name
from ..units import count_of, format_bytes
from .holes import holes_of_plan
from .writing import line_before_parts

if TYPE_CHECKING:
    from .result import Result

_CLASSIFY_AGAIN = "Delete that file, then repeat the command of the run, with --resume."


@dataclass(frozen=True)
class Verified:
    """The totals of a run that `verify` has checked."""

    parts: int
    rows: int
    bad_rows: int
    bytes: int
    missing: int  #: rows that a partial run does not have
    #: SHA-256 in hex of all parts in order, decompressed, as from `zcat parts/*.csv.gz | sha256sum`. Parquet parts
    #: are not decompressed, so their digest also depends on how many parts there are.
    sha256: str

    def _repr_html_(self) -> str:
        counts = {"parts": f"{self.parts:,}", "rows": f"{self.rows:,}", "bad rows": f"{self.bad_rows:,}"}
        return templating.table(
            "Verified", counts | {"size": format_bytes(self.bytes), "SHA-256 of all rows": self.sha256}
        )


def verify(result: "Result") -> Verified:
    """Read every part again. Raise DamagedRun for the first problem."""
    plan = result.folder.read_json(PLAN)
    _check_sums(result, plan)
    _check_names(result, _indices(plan) - {receipt.index for receipt in result.receipts})
    digest = hashlib.sha256()
    for content in result.read_ahead(lambda receipt: _proven_content(result, receipt)):
        digest.update(content)
    _check_single_file(result)
    missing = result.manifest.get("rows_missing", 0)
    counts = len(result.receipts), result.rows, result.bad_rows, result.manifest["bytes"], missing
    return Verified(*counts, digest.hexdigest())


def _check_sums(result: "Result", plan: dict[str, Any]) -> None:
    receipts = result.receipts
    rows = sum(receipt.rows for receipt in receipts), sum(receipt.bad_rows for receipt in receipts)
    counts = (result.rows, result.bad_rows)
    total = sum(rows) + _check_missing(result, plan)
    if rows != counts or total != result.manifest["rows_in"] or total != plan["rows"]:
        raise DamagedRun(
            f"The receipts of {result.output} do not add up to the manifest's rows.", "Run it again with --overwrite."
        )
    complete = result.partial or len(_indices(plan)) == len(receipts)
    if plan["fingerprint"] != result.manifest["fingerprint"] or not complete:
        raise DamagedRun(
            f"plan.json and manifest.json of {result.output} belong to different runs.",
            "Run it again with --overwrite.",
        )


def _indices(plan: dict[str, Any]) -> set[int]:
    """Return the numbers of the plan's blocks."""
    return {index for index, *_ in plan["blocks"]}


def _check_missing(result: "Result", plan: dict[str, Any]) -> int:
    """Return the rows that a partial run does not have, once it is sure that missing.json names them."""
    if not result.partial:
        return 0
    holes = holes_of_plan(plan, [receipt.index for receipt in result.receipts])
    rows = sum(hole["rows"] for hole in holes)
    stored = result.folder.read_json(MISSING)
    if stored["holes"] != holes or stored["rows"] != rows:
        raise DamagedRun(
            f"{MISSING} of {result.output} does not name the rows that are missing.",
            "Repeat the command of the run, with --resume.",
        )
    return rows


def _check_names(result: "Result", holes: set[int]) -> None:
    """Check that the files of all receipts exist, and no others.

    A block that is missing in a partial run (`holes`) may have files: a worker has finished it too late.
    """
    expected = {name for receipt in result.receipts for name in _names(receipt, result.part_format.name)}
    present = {name for name in result.folder.sizes() if name.startswith(("parts/", "quarantine/"))}
    late = {name for name in present - expected if _index(name) in holes}
    wrong = sorted((present - late) ^ expected)
    if wrong:
        if wrong[0] in expected:
            raise missing(wrong[0], result.output)
        raise DamagedRun(f"{wrong[0]} of {result.output} does not belong to the run.", "Delete that file.")


def _is_line_before_parts(data: bytes, result: "Result") -> bool:
    """Return whether this is the line of names before the parts, if one is needed, however it was compressed."""
    wanted = line_before_parts(result, header=result.manifest["header"])
    content = result.part_format.content
    return (content(data) if data else b"") == (content(wanted) if wanted else b"")  # earlier versions wrote no byte


def _check_single_file(result: "Result") -> None:
    """Check that the file with all rows, if the run has one, has the bytes of the parts; of Parquet, only its size."""
    file = result.manifest.get("single_file")
    if not file:
        return
    url = result.folder.path(file["name"])
    same = result.folder.sizes().get(file["name"]) == file["bytes"]
    if same and result.part_format.joins:
        with storage.open_stream(url) as stream:
            same = _is_line_before_parts(stream.read(file["bytes"] - result.manifest["bytes"]), result)
            same = same and all(stream.read(len(data)) == data for data in result.read_ahead(result.stored))
    if not same:
        raise DamagedRun(
            f"{file['name']} of {result.output} is missing, or does not have the rows of the parts.",
            f"Write it again: dask-classify publish {result.output} {url} --overwrite.",
        )


def _index(name: str) -> int:
    """Return the number of the block of a part, a receipt or a quarantine file."""
    return int(name.rpartition("-")[2].partition(".")[0])


def _names(receipt: Receipt, part_format: str) -> list[str]:
    names = [part_name(receipt.index, part_format), receipt_name(receipt.index)]
    return [*names, quarantine_name(receipt.index)] if receipt.bad_rows else names


def _proven_content(result: "Result", receipt: Receipt) -> bytes:
    """Return the contents of a part. Raise DamagedRun if it or its quarantine file does not match its receipt."""
    data = result.stored(receipt)
    if receipt.bad_rows:
        name = quarantine_name(receipt.index)
        bad = result.folder.read(name)
        check_bytes(bad, receipt.quarantine_bytes, receipt.quarantine_sha256, name)
        _check_rows(CSV_GZ.rows(bad, header=False), receipt.bad_rows, name)
    rows = result.part_format.rows(data, header=result.begins_with_names(receipt))
    _check_rows(rows, receipt.rows, part_name(receipt.index, result.part_format.name))
    return result.part_format.content(data)


def missing(name: str, output: str) -> DamagedRun:
    """Return the error for a missing file."""
    return DamagedRun(f"{name} of {output} is missing.", "Repeat the command of the run, with --resume.")


def check_bytes(data: bytes, size: int, sha256: str, name: str) -> None:
    """Raise DamagedRun if a file does not match its receipt."""
    if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedRun(f"{name} does not match its receipt (size or SHA-256).", _CLASSIFY_AGAIN)


def _check_rows(rows: int, expected: int, name: str) -> None:
    if rows != expected:
        raise DamagedRun(f"{name} has {count_of(rows, 'row')}, but its receipt has {expected:,}.", _CLASSIFY_AGAIN)
