"""What a plan's output folder holds already: nothing, a run to go on with, a complete run, or one that must stay."""

import json
from dataclasses import dataclass

from ..errors import OutputExists
from ..parts.receipts import Receipt
from ..parts.run_folder import COPIES, MANIFEST, PLAN, part_name, quarantine_name, receipt_name
from ..units import count_of
from .cut import Cut
from .planning import CODE, Plan


@dataclass(frozen=True)
class Earlier:
    """What an earlier attempt of a plan has left: its cut and the receipts of finished blocks; or nothing yet."""

    cut: Cut | None = None
    receipts: tuple[Receipt, ...] = ()
    complete: bool = False


def look(plan: Plan) -> Earlier:
    """Return what the plan's output folder holds. Raises OutputExists where the plan must not go on there."""
    sizes = plan.folder.sizes()
    runs_files = [name for name in sizes if not name.startswith(f"{COPIES}/")]
    if plan.overwrite or not runs_files:
        return Earlier()
    if PLAN not in sizes:
        raise OutputExists(
            f"{plan.output} contains {runs_files[0]}, but no {PLAN}, so it is not a run that can be resumed.",
            "Give --overwrite to delete what a run has left there and start over, or choose another --output.",
        )
    stored = plan.folder.read_json(PLAN)
    complete = MANIFEST in sizes
    if not plan.resume:
        kind = "a complete run" if complete else "a run that is not complete"
        raise OutputExists(
            f"{plan.output} holds {kind}.",
            "Go on with --resume, start again with --overwrite, or choose another --output.",
        )
    _refuse_another(plan, stored)
    cut = Cut.load(plan, stored)
    receipts = _receipts(plan, cut, sizes)
    return Earlier(cut, receipts, complete and not cut.missing(receipts))


def _refuse_another(plan: Plan, stored: dict) -> None:
    now = json.loads(json.dumps(plan.identity))
    changed = [name for name in now | stored["identity"] if now.get(name) != stored["identity"].get(name)]
    if changed:
        difference = _difference(changed[0], stored["identity"].get(changed[0]), now.get(changed[0]))
        others = f" (and: {', '.join(changed[1:])})" if changed[1:] else ""
        raise OutputExists(
            f"{plan.output} holds another run: its {changed[0]} {difference}{others}.",
            "Give the same input and options to go on; or start again with --overwrite, or another --output.",
        )


def _difference(name: str, was: object, is_now: object) -> str:
    if name == CODE:
        return "has changed"
    if name == "source":
        return _difference_of_sources(was or [], is_now)
    return f"was {_short(was)}, now it is {_short(is_now)}"


def _difference_of_sources(was: list[dict], is_now: list[dict]) -> str:
    """The first file that differs, or how many there are."""
    if len(was) != len(is_now):
        return f"was {count_of(len(was), 'file')}, now it is {count_of(len(is_now), 'file')}"
    before, after = next((old, new) for old, new in zip(was, is_now, strict=True) if old != new)
    if before["url"] == after["url"] and "version" in before:
        return f"{after['url']} has changed since: it had {before['size']:,} bytes, now it has {after['size']:,}"
    return f"was {_named_source(before)}, now it is {_named_source(after)}"


def _named_source(file: dict) -> str:
    if "rows" in file:
        return f"{file['rows']:,} generated rows (seed {file['seed']})"
    return f"{file['url']} ({file['size']:,} bytes)"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 160 else f"{text[:160]}..."


def _receipts(plan: Plan, cut: Cut, sizes: dict[str, int]) -> tuple[Receipt, ...]:
    """The receipts of this plan whose parts and quarantine files are there; a block without one is done again."""
    names = [name for block in cut.blocks if (name := receipt_name(block.index)) in sizes]
    receipts = []
    for text in plan.folder.read_many(names):
        try:
            receipt = Receipt.from_json(text)
        except ValueError:
            continue
        if receipt.fingerprint == cut.fingerprint(plan) and not missing_files(receipt, plan.part_format, sizes):
            receipts.append(receipt)
    return tuple(receipts)


def missing_files(receipt: Receipt, part_format: str, sizes: dict[str, int]) -> list[str]:
    """Return the files of a receipt that are not there, or have another size."""
    expected = {part_name(receipt.index, part_format): receipt.bytes}
    if receipt.bad_rows:
        expected[quarantine_name(receipt.index)] = receipt.quarantine_bytes
    return [name for name, size in expected.items() if sizes.get(name) != size]


def clear(plan: Plan) -> None:
    """Remove the run that `--overwrite` gives up, the manifest first; nothing that is not a run's, nor the copies that
    the plan has decompressed.
    """
    kept = {file.data_url for _, file in plan.source.copies}
    names = [name for name in plan.folder.sizes() if plan.folder.path(name) not in kept]
    for name in sorted(names, key=lambda name: (name != MANIFEST, name)):
        plan.folder.delete(name)
