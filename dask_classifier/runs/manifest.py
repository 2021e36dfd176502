"""manifest.json: the proof that a run is complete, and a record of the run."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from .. import s3, templating
from ..errors import DamagedRun, StorageError
from ..parts.receipts import Receipt, common_kinds
from ..parts.run_folder import MANIFEST, MISSING, RunFolder, as_json
from ..rows.blocks import Block
from ..rows.layouts import Layout
from ..units import count_of, format_bytes
from .earlier import missing_files
from .holes import holes_of
from .lock import Lock
from .plan_file import Cut
from .planning import Plan

_TRIES = 3  # to write a manifest that another request changes


class Stage(NamedTuple):
    """A stage of a run, such as "classifying" or "publishing"."""

    name: str
    started: float  # seconds since 1970
    seconds: float


class Manifest(dict[str, Any]):
    """The contents of manifest.json; docs/files.md describes each entry."""

    @property
    def words(self) -> dict[str, str]:
        """The numbers of input, output and quarantined rows, and of parts, as text."""
        return {
            "rows in": f"{self['rows_in']:,}",
            "rows out": f"{self['rows_out']:,}",
            "rows quarantined": f"{self['bad_rows']:,}",
            **({"rows missing": f"{self['rows_missing']:,}, in {MISSING}"} if self.get("partial") else {}),
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
    plan: Plan,
    cut: Cut,
    receipts: tuple[Receipt, ...],
    *,
    stages: Callable[[], list[Stage]],
    resumed: list[int],
    partial: bool = False,
    lock: Lock,
) -> None:
    """Check that the receipts account for every row of the plan, then write manifest.json, which completes the run.

    A partial run may have blocks without a receipt: missing.json, which is written first, names their rows.
    Raise DamagedRun, and write nothing, if the rows do not add up.
    """
    missing = cut.missing(receipts) if partial else []
    try:
        holes = {block.index for block in missing}
        _check(plan, [block for block in cut.blocks if block.index not in holes], receipts)
    except DamagedRun:
        cut.restore(plan)
        raise
    plan.folder.delete_unfinished()
    spent = stages()
    _abort_uploads(plan.folder, before=spent[0].started)
    content = {
        "fingerprint": plan.fingerprint,
        "partial": bool(missing),
        "rows_in": cut.rows,
        "rows_missing": sum(block.rows for block in missing),
        "rows_out": sum(receipt.rows for receipt in receipts),
        "bad_rows": sum(receipt.bad_rows for receipt in receipts),
        "bytes": sum(receipt.bytes for receipt in receipts),
        **_columns(receipts, cut.source.layout),
        "output_format": plan.part_format,
        "header": plan.header,
        "started": spent[0].started,
        "seconds": spent[-1].started + spent[-1].seconds - spent[0].started,
        "stages": [list(stage) for stage in spent],
        "resumed": resumed,
        "versions": plan.versions,
        "source": {"rows": cut.rows, "files": len(cut.source.files), "sha256": _digest_of(plan.identity["source"])},
        "result": {"rows": sum(receipt.rows for receipt in receipts), "sha256": _digest_of_parts(receipts)},
        "classifier": {"reference": plan.package.reference, "sha256": plan.package.digest},
        "prediction": plan.prediction,
        "parts": [asdict(receipt) for receipt in receipts],
    }
    if missing:
        ranges = holes_of(cut.source, missing)
        plan.folder.write_json(MISSING, {"rows": content["rows_missing"], "blocks": len(missing), "holes": ranges})
    lock.publish(MANIFEST, as_json(content))
    if not missing:
        with contextlib.suppress(StorageError):  # without the right to delete; nobody reads it in a complete run
            plan.folder.delete(MISSING)


def _digest_of(identity: object) -> str:
    """SHA-256 in hex of the files' names, sizes and versions: that of their contents would need another pass."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _digest_of_parts(receipts: tuple[Receipt, ...]) -> str:
    """SHA-256 in hex of the digests of all parts, in order."""
    return hashlib.sha256("".join(receipt.sha256 for receipt in receipts).encode()).hexdigest()


def _abort_uploads(folder: RunFolder, before: float) -> None:
    """Abort uploads that were interrupted before this run. A later one may belong to another command still at work."""
    with contextlib.suppress(StorageError):  # optional: without this permission, the run is still complete
        for upload in folder.uploads():
            if upload.name and upload.began < before:
                s3.abort(upload)


def add_to_manifest(folder: RunFolder, run: Mapping[str, Any], **entries: object) -> bool:
    """Add what is known only after a run is complete: its single file, and what happened to its instances.

    `run` is the manifest of that run. If another run has the folder by now, as it may while instances terminate,
    nothing is written. Return whether the entries are there.
    """
    url = folder.path(MANIFEST)
    for _ in range(_TRIES):
        there = s3.version_and_age(url) if s3.is_s3(url) else None
        content = folder.read_json(MANIFEST)
        if any(content.get(name) != run[name] for name in ("fingerprint", "started")):
            return False
        if content | entries == content:  # perhaps by a request whose answer was lost
            return True
        if there is None:
            folder.write_json(MANIFEST, content | entries)
        elif s3.write_if(url, as_json(content | entries), there[0]):
            return True
    return False


def _columns(receipts: Sequence[Receipt], layout: Layout) -> dict[str, Any]:
    """Return names and kinds of the parts' columns or, of a run without rows, those that the classifier would get."""
    with_rows = [receipt for receipt in receipts if receipt.columns]
    names = with_rows[0].columns if with_rows else layout.names
    kinds = common_kinds([receipt.kinds for receipt in with_rows]) if with_rows else "O" * len(names)
    return {"columns": list(names), "kinds": kinds}


def _check(plan: Plan, blocks: Sequence[Block], receipts: tuple[Receipt, ...]) -> None:
    rows = {receipt.index: receipt.rows + receipt.bad_rows for receipt in receipts}
    for block in blocks:
        if rows.get(block.index) != block.rows:
            counted = rows.get(block.index, 0)
            raise DamagedRun(
                f"Block {block.index} has {count_of(block.rows, 'row')}, but its receipt has {counted:,}.",
                "Repeat the command of the run, with --resume.",
            )
    columns = {receipt.columns: receipt.index for receipt in receipts if receipt.columns}
    if len(columns) > 1:
        (first, at), (other, there) = sorted(columns.items(), key=lambda item: item[1])[:2]
        raise DamagedRun(
            f"The classifier's columns changed from {list(first)} (block {at}) to {list(other)} (block {there}).",
            "Return the same columns for each chunk, then start over with --overwrite.",
        )
    sizes = plan.folder.sizes()
    lost = [name for receipt in receipts for name in missing_files(receipt, plan.part_format, sizes)]
    if lost:
        raise DamagedRun(
            f"{plan.output} does not contain {count_of(len(lost), 'file')} written by the workers, such as {lost[0]}.",
            "Check that no other command uses this folder, and that all workers and this computer share it, as with "
            "an s3:// URL.",
        )
