"""manifest.json: the proof that a run is complete, and what it was."""

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

from .. import storage, templating
from ..errors import DamagedRun, StorageError
from ..parts.receipts import Receipt, common_kinds
from ..parts.run_folder import MANIFEST, PLAN, RunFolder
from ..units import format_bytes
from .cut import Cut
from .earlier import missing_files
from .planning import Plan, versions


class Stage(NamedTuple):
    """What a run was at: "classifying", "publishing"."""

    name: str
    started: float  # seconds since 1970
    seconds: float


class Manifest(dict[str, Any]):
    """The contents of manifest.json: `docs/files.md` says what each entry means."""

    @property
    def words(self) -> dict[str, str]:
        """Rows in, out and set aside, and parts, for people."""
        return {
            "rows in": f"{self['rows_in']:,}",
            "rows out": f"{self['rows_out']:,}",
            "rows quarantined": f"{self['bad_rows']:,}",
            "parts": f"{len(self['parts']):,}, {format_bytes(self['bytes'])}",
        }

    def __repr__(self) -> str:
        rows = f"{self['rows_out']:,} rows, {self['bad_rows']:,} bad rows"
        return f"<Manifest: {rows}, {len(self['parts']):,} parts, {len(self)} entries>"

    def _repr_html_(self) -> str:
        shown = (
            "columns",
            "output_format",
            "header",
            "seconds",
            "resumed",
            "versions",
            "machines",
            "fingerprint",
        )
        return templating.table("Manifest", self.words | {name: self[name] for name in shown if name in self})


def save_manifest(
    plan: Plan, cut: Cut, receipts: tuple[Receipt, ...], *, stages: Callable[[], list[Stage]], resumed: list[int]
) -> None:
    """Prove that the receipts account for every row of the plan, and write manifest.json: now the run is
    complete.

    Raises DamagedRun, and writes nothing, where they do not.
    """
    try:
        _check(plan, cut, receipts)
    except DamagedRun:
        if not plan.folder.exists(PLAN):
            cut.save(plan)  # somebody has deleted the folder: with a plan, --resume does what is missing
        raise
    plan.folder.delete_unfinished()
    spent = stages()
    _abort_uploads(plan.folder, before=spent[0].started)
    content = {
        "fingerprint": plan.fingerprint,
        "rows_in": cut.rows,
        "rows_out": sum(receipt.rows for receipt in receipts),
        "bad_rows": sum(receipt.bad_rows for receipt in receipts),
        "bytes": sum(receipt.bytes for receipt in receipts),
        "columns": next((list(receipt.columns) for receipt in receipts if receipt.columns), []),
        "kinds": common_kinds([receipt.kinds for receipt in receipts if receipt.columns]),
        "output_format": plan.part_format,
        "header": plan.header,
        "started": spent[0].started,
        "seconds": spent[-1].started + spent[-1].seconds - spent[0].started,
        "stages": [list(stage) for stage in spent],
        "resumed": resumed,
        "versions": versions(),
        "parts": [asdict(receipt) for receipt in receipts],
    }
    plan.folder.write_json(MANIFEST, content)


def _abort_uploads(folder: RunFolder, before: float) -> None:
    """Abort what was cut off before this run began; a younger one may be another command's, at work on it, too."""
    with contextlib.suppress(StorageError):  # the run is complete without it, also where this is not allowed
        for upload in folder.uploads():
            if upload.name and upload.began < before:
                storage.abort(upload)


def add_machines(folder: RunFolder, machines: dict[str, object]) -> None:
    """Write into a complete run's manifest what became of the machines, which end after the run."""
    folder.write_json(MANIFEST, folder.read_json(MANIFEST) | {"machines": machines})


def _check(plan: Plan, cut: Cut, receipts: tuple[Receipt, ...]) -> None:
    rows = {receipt.index: receipt.rows + receipt.bad_rows for receipt in receipts}
    for block in cut.blocks:
        if rows.get(block.index) != block.rows:
            raise DamagedRun(
                f"Block {block.index} has {block.rows} rows, its receipt {rows.get(block.index)}.", "Use --resume."
            )
    columns = {receipt.columns: receipt.index for receipt in receipts if receipt.columns}
    if len(columns) > 1:
        (first, at), (other, there) = sorted(columns.items(), key=lambda item: item[1])[:2]
        raise DamagedRun(
            f"The classifier's columns changed from {list(first)} (block {at}) to {list(other)} (block {there}).",
            "Return the same columns for each chunk, then start again with --overwrite.",
        )
    sizes = plan.folder.sizes()
    lost = [name for receipt in receipts for name in missing_files(receipt, plan.part_format, sizes)]
    if lost:
        raise DamagedRun(
            f"{len(lost)} files that the workers wrote are not in {plan.output}, such as {lost[0]}.",
            "Is another command at work on it? Can all workers and this machine reach the same folder, as with s3://?",
        )
