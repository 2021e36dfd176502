"""What a run promised (plan.json) and what it delivered (receipts, manifest.json); the difference is resume."""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any, NamedTuple

from .. import storage, templating
from ..errors import DamagedRun, OutputExists, StorageError
from ..parts.formats import FORMATS
from ..parts.receipts import Receipt, common_kinds, part_name, quarantine_name, receipt_name
from ..rows.source import Block, Source
from ..units import count_of, format_bytes
from .planning import CODE, UNPACKED, Plan, versions

PLAN, MANIFEST, REPORT = "plan.json", "manifest.json", "report.html"
FORMAT = 1  # of these files; a change that an older reader would misread makes it 2
_OURS = re.compile(
    rf"({PLAN}|{MANIFEST}|{REPORT}|{UNPACKED}/\d+-[0-9a-f]+\.csv|quarantine/part-\d+\.csv\.gz"
    rf"|parts/part-\d+\.({'|'.join(map(re.escape, FORMATS))}|json))"
)


@dataclass(frozen=True)
class Cut:
    """How the source was cut: what plan.json adds to a plan."""

    source: Source  # with the sizes of decompressed copies
    blocks: tuple[Block, ...]
    seconds_a_row: float  # measured by the trial; 0 where there was none

    def fingerprint(self, plan: Plan) -> str:
        """What receipts must show: this plan, in this cut. Two runs of a plan may measure, and so cut, differently."""
        blocks = json.dumps([astuple(block) for block in self.blocks])
        return hashlib.sha256(f"{plan.fingerprint} {blocks}".encode()).hexdigest()

    @property
    def rows(self) -> int:
        """Rows in."""
        return sum(block.rows for block in self.blocks)


class Stage(NamedTuple):
    """What a run was at: "classifying", "publishing"."""

    name: str
    started: float  # seconds since 1970
    seconds: float


@dataclass(frozen=True)
class Found:
    """What is in an output folder of this plan: its cut and the receipts of finished blocks; or nothing yet."""

    cut: Cut | None = None
    receipts: tuple[Receipt, ...] = ()
    complete: bool = False


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


def read_json(output: str, name: str) -> dict:
    """A JSON file of a run. Raises DamagedRun where it is none, StorageError where it is missing."""
    try:
        found = json.loads(storage.read(storage.join(output, name)))
        if found["format"] != FORMAT:
            raise DamagedRun(
                f"{name} of {output} has format {found['format']}, not {FORMAT}.", "Use the version that wrote it."
            )
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedRun(f"{name} of {output} is damaged: {error}.", "Start again with --overwrite.") from error
    return found


def _write_json(output: str, name: str, content: dict) -> None:
    storage.write(storage.join(output, name), _readable({"format": FORMAT} | content).encode())


def _readable(content: dict) -> str:
    """JSON with a line for each value, and for each item of a long list: json's own `indent` is ten times as slow."""

    def text(value: object) -> str:
        if not isinstance(value, list) or len(value) < 2:
            return json.dumps(value)
        return "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"

    return "{\n " + ",\n ".join(f"{json.dumps(name)}: {text(value)}" for name, value in content.items()) + "\n}\n"


def is_ours(name: str) -> bool:
    """Whether a name in a run's folder is one that runs use; other files there are the user's."""
    return _OURS.fullmatch(name) is not None


def look(plan: Plan) -> Found:
    """What the plan's output folder holds. Raises OutputExists where the plan must not go on there."""
    sizes = storage.sizes(plan.output)
    ours = [name for name in sizes if is_ours(name) and not name.startswith(f"{UNPACKED}/")]
    if plan.overwrite or not ours:
        return Found()
    if PLAN not in sizes:
        raise OutputExists(
            f"{plan.output} contains {ours[0]}, but no {PLAN}, so it is not a run that can be resumed.",
            "Give --overwrite to delete what a run has left there and start over, or choose another --output.",
        )
    stored = read_json(plan.output, PLAN)
    complete = MANIFEST in sizes
    if not plan.resume:
        kind = "a complete run" if complete else "a run that is not complete"
        raise OutputExists(
            f"{plan.output} holds {kind}.",
            "Go on with --resume, start again with --overwrite, or choose another --output.",
        )
    _refuse_another(plan, stored)
    cut = _cut_from_json(plan, stored)
    receipts = _receipts(plan, cut, sizes)
    return Found(cut, receipts, complete and not missing(cut, receipts))


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
    """The receipts of this plan whose parts and quarantine files are there; a block without one is done
    again.
    """
    names = [name for block in cut.blocks if (name := receipt_name(block.index)) in sizes]
    found = []
    for text in storage.read_many([storage.join(plan.output, name) for name in names]):
        try:
            receipt = Receipt.from_json(text)
        except ValueError:
            continue
        if receipt.fingerprint == cut.fingerprint(plan) and not _missing_files(receipt, plan.part_format, sizes):
            found.append(receipt)
    return tuple(found)


def _missing_files(receipt: Receipt, part_format: str, sizes: dict[str, int]) -> list[str]:
    """Files of a receipt that are not there, or have another size."""
    expected = {part_name(receipt.index, part_format): receipt.bytes}
    if receipt.bad_rows:
        expected[quarantine_name(receipt.index)] = receipt.quarantine_bytes
    return [name for name, size in expected.items() if sizes.get(name) != size]


def clear(plan: Plan) -> None:
    """Remove the run that `--overwrite` gives up, the manifest first; nothing that is not a run's, nor the copies that
    the plan has decompressed.
    """
    kept = {file.data_url for _, file in plan.source.copies}
    names = [name for name in storage.sizes(plan.output) if is_ours(name)]
    names = [name for name in names if storage.join(plan.output, name) not in kept]
    for name in sorted(names, key=lambda name: (name != MANIFEST, name)):
        storage.delete(storage.join(plan.output, name))


def save_plan(plan: Plan, cut: Cut) -> None:
    """Write plan.json: from now on the output is this run's."""
    files = [asdict(file) for file in cut.source.files]
    blocks = [list(astuple(block)) for block in cut.blocks]
    content = {
        "fingerprint": plan.fingerprint,
        "identity": plan.identity,
        "max_bad": plan.max_bad.text,
        "seconds_a_row": cut.seconds_a_row,
        "rows": cut.rows,
        "files": files,
        "block_fields": list(Block.__dataclass_fields__),
        "blocks": blocks,
    }
    _write_json(plan.output, PLAN, content)


def _cut_from_json(plan: Plan, stored: dict) -> Cut:
    """The stored cut; the files are the plan's, since their identities are equal, with the decompressed copies'
    sizes.
    """
    files = tuple(replace(file, **was) for file, was in zip(plan.source.files, stored["files"], strict=True))
    blocks = tuple(Block(*values) for values in stored["blocks"])
    return Cut(replace(plan.source, files=files), blocks, stored["seconds_a_row"])


def missing(cut: Cut, receipts: tuple[Receipt, ...]) -> list[Block]:
    """The blocks without a receipt: what is still to be done."""
    done = {receipt.index for receipt in receipts}
    return [block for block in cut.blocks if block.index not in done]


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
        if not storage.exists(storage.join(plan.output, PLAN)):
            save_plan(plan, cut)  # somebody has deleted the folder: with a plan, --resume does what is missing
        raise
    for folder in ("parts", "quarantine", UNPACKED):
        storage.delete_unfinished(storage.join(plan.output, folder))
    spent = stages()
    _abort_uploads(plan.output, before=spent[0].started)
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
    _write_json(plan.output, MANIFEST, content)


def uploads(output: str) -> list[storage.Upload]:
    """Uploads of a run's files that are under way or were cut off, and one to `output` itself, as of `fetch`."""
    return [each for each in storage.unfinished_uploads(output) if not each.name or is_ours(each.name)]


def _abort_uploads(output: str, before: float) -> None:
    """Abort what was cut off before this run began; a younger one may be another command's, at work on it, too."""
    with contextlib.suppress(StorageError):  # the run is complete without it, also where this is not allowed
        for each in uploads(output):
            if each.name and each.began < before:
                storage.abort(each)


def add_machines(output: str, machines: dict[str, object]) -> None:
    """Write into a complete run's manifest what became of the machines, which end after the run."""
    _write_json(output, MANIFEST, read_json(output, MANIFEST) | {"machines": machines})


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
    sizes = storage.sizes(plan.output)
    lost = [name for receipt in receipts for name in _missing_files(receipt, plan.part_format, sizes)]
    if lost:
        raise DamagedRun(
            f"{len(lost)} files that the workers wrote are not in {plan.output}, such as {lost[0]}.",
            "Is another command at work on it? Can all workers and this machine reach the same folder, as with s3://?",
        )
