"""Inspect a plan's output folder: it may be empty, or contain a run to resume, a complete run or a different run."""

import json
from dataclasses import dataclass

from ..errors import OutputExists
from ..parts.receipts import Receipt
from ..parts.run_folder import COPIES, MANIFEST, PLAN, part_name, quarantine_name, receipt_name
from ..units import count_of
from .lock import refuse_if_held
from .plan_file import Cut
from .planning import CODE, Plan


@dataclass(frozen=True)
class Earlier:
    """The cut and the receipts of finished blocks of an earlier attempt; the defaults if there was none."""

    cut: Cut | None = None
    receipts: tuple[Receipt, ...] = ()
    complete: bool = False


def look_unlocked(plan: Plan) -> Earlier:
    """Look before the lock is acquired. Raise RunInUse if the plan must not continue what another command works on."""
    try:
        return look(plan)
    except OutputExists:
        refuse_if_held(plan.folder)
        raise


def look(plan: Plan) -> Earlier:
    """Return the earlier attempt in the plan's output folder. Raise OutputExists if the plan must not continue it."""
    sizes = plan.folder.sizes()
    runs_files = [name for name in sizes if not name.startswith(f"{COPIES}/")]
    if plan.overwrite or not runs_files:
        return Earlier()
    if PLAN not in sizes:
        raise OutputExists(
            f"{plan.output} contains {runs_files[0]}, but no {PLAN}, so it is not a run that can be resumed.",
            "Use --overwrite to delete a run's files there and start over, or choose another --output.",
        )
    stored = plan.folder.read_json(PLAN)
    complete = MANIFEST in sizes and not plan.folder.read_json(MANIFEST).get("partial")
    if not plan.resume:
        kind = "a complete run" if complete else "an incomplete run"
        raise OutputExists(
            f"{plan.output} already contains {kind}.",
            "Continue with --resume, start over with --overwrite, or choose another --output.",
        )
    _refuse_another(plan, stored)
    cut = Cut.load(plan, stored, list(sizes))
    receipts = _receipts(plan, cut, sizes)
    return Earlier(cut, receipts, complete and not cut.missing(receipts))


def _refuse_another(plan: Plan, stored: dict) -> None:
    """Raise OutputExists if the stored plan differs from this one in anything that affects the result."""
    now = json.loads(json.dumps(plan.identity))
    changed = [name for name in now | stored["identity"] if now.get(name) != stored["identity"].get(name)]
    if changed:
        difference = _difference(changed[0], stored["identity"].get(changed[0]), now.get(changed[0]))
        others = f" (also changed: {', '.join(changed[1:])})" if changed[1:] else ""
        raise OutputExists(
            f"{plan.output} already contains a different run: its {changed[0]} {difference}{others}.",
            "Use the same input and options to continue it, start over with --overwrite, or choose another --output.",
        )


def _difference(name: str, was: object, is_now: object) -> str:
    if name == CODE:
        return "has changed"
    if name == "source":
        return _difference_of_sources(was or [], is_now)
    return f"was {_short(was)} and is now {_short(is_now)}"


def _difference_of_sources(was: list[dict], is_now: list[dict]) -> str:
    """Describe the first file that differs, or the numbers of files if they differ."""
    if len(was) != len(is_now):
        return f"was {count_of(len(was), 'file')} and is now {count_of(len(is_now), 'file')}"
    before, after = next((old, new) for old, new in zip(was, is_now, strict=True) if old != new)
    if before["url"] == after["url"] and "version" in before:
        sizes = f"{before['size']:,} bytes then, {after['size']:,} bytes now"
        return f"{after['url']} has been modified ({sizes})"
    return f"was {_named_source(before)} and is now {_named_source(after)}"


def _named_source(file: dict) -> str:
    if "seed" in file:
        return f"{file['rows']:,} generated rows (seed {file['seed']})"
    return f"{file['url']} ({file['size']:,} bytes)" if "size" in file else str(file["url"])


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 160 else f"{text[:160]}..."


def _receipts(plan: Plan, cut: Cut, sizes: dict[str, int]) -> tuple[Receipt, ...]:
    """Return the plan's receipts whose parts and quarantine files exist. Blocks without one are classified again."""
    blocks = [block for block in cut.blocks if receipt_name(block.index) in sizes]
    receipts, fingerprint_of = [], cut.fingerprints(plan)
    texts = plan.folder.read_many([receipt_name(block.index) for block in blocks])
    for block, text in zip(blocks, texts, strict=True):
        try:
            receipt = Receipt.from_json(text)
        except ValueError:
            continue
        if receipt.fingerprint == fingerprint_of(block) and not missing_files(receipt, plan.part_format, sizes):
            receipts.append(receipt)
    return tuple(receipts)


def missing_files(receipt: Receipt, part_format: str, sizes: dict[str, int]) -> list[str]:
    """Return the files of a receipt that do not exist or have another size."""
    expected = {part_name(receipt.index, part_format): receipt.bytes}
    if receipt.bad_rows:
        expected[quarantine_name(receipt.index)] = receipt.quarantine_bytes
    return [name for name, size in expected.items() if sizes.get(name) != size]


def clear(plan: Plan) -> None:
    """Delete the run that `--overwrite` replaces, starting with its manifest and its plan.

    Files that do not belong to a run, and the copies that the plan has written, are kept.
    """
    kept = {file.data_url for _, file in plan.source.copies}
    names = [name for name in plan.folder.sizes() if plan.folder.path(name) not in kept]
    for name in sorted(names, key=lambda name: (name != MANIFEST, name != PLAN, name)):
        plan.folder.delete(name)
