"""How a source was cut into blocks, and plan.json, in which this is stored."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Self

from ..parts.receipts import Receipt
from ..parts.run_folder import BLOCKS, PLAN, blocks_name
from ..rows.blocks import BLOCK_FIELDS, Block, blocks_of_lines
from ..rows.source import Source
from .planning import Plan


@dataclass(frozen=True)
class Cut:
    """How the source was cut into blocks. plan.json stores it with the plan.

    If large compressed files are among the inputs, blocks become known one after the other. Those that became known
    after plan.json was written are in files of their own, until the cut is complete.
    """

    source: Source  # with the sizes of copies
    blocks: tuple[Block, ...]
    seconds_a_row: float  # measured by the trial; 0 if there was none
    complete: bool = True  # whether these are all blocks
    chain: str = ""  # what tells these blocks from others, if it is known

    def fingerprints(self, plan: Plan) -> Callable[[Block], str]:
        """Return a function from a block to the fingerprint of its receipt, that of the plan and this cut.

        Two runs of a plan may measure different speeds, and so cut the source differently. As long as not all blocks
        are known, a fingerprint is that of the plan and the block alone.
        """
        if self.source.flowing:
            return lambda block: _digest(plan, block.lines())
        of_all = _digest(plan, self.lines)
        return lambda block: of_all

    @cached_property
    def lines(self) -> list[tuple[int, ...]]:
        """The blocks as plan.json has them."""
        return [line for block in self.blocks for line in block.lines()]

    @property
    def rows(self) -> int:
        """The number of rows in all blocks."""
        return sum(block.rows for block in self.blocks)

    def missing(self, receipts: tuple[Receipt, ...]) -> list[Block]:
        """Return the blocks without a receipt, which are still to be classified."""
        done = {receipt.index for receipt in receipts}
        return [block for block in self.blocks if block.index not in done]

    def save(self, plan: Plan) -> None:
        """Write plan.json. From now on, the output folder belongs to this run."""
        content = {
            "fingerprint": plan.fingerprint,
            "identity": plan.identity,
            "max_bad": plan.max_bad.text,
            "seconds_a_row": self.seconds_a_row,
            "rows": self.rows,
            **({} if self.complete else {"growing": True}),
            "files": [asdict(file) for file in self.source.files],
            "prediction": plan.prediction,
            "block_fields": list(BLOCK_FIELDS),
            "blocks": self.lines,
        }
        plan.folder.write_json(PLAN, content)

    def grown(self, plan: Plan, blocks: Sequence[Block]) -> Self:
        """Return this cut with more blocks, which are written to a file before, with those that they follow."""
        chain = self.chain or _chained("", self.blocks)
        content = {"after": chain, "blocks": [line for block in blocks for line in block.lines()]}
        plan.folder.write(blocks_name(blocks[0].index), json.dumps(content).encode())
        return replace(self, blocks=self.blocks + tuple(blocks), chain=_chained(chain, blocks))

    def forget_others(self, plan: Plan) -> None:
        """Empty the files with blocks behind those of this cut: behind a file that was deleted, the cut may differ."""
        ours = {blocks_name(block.index) for block in self.blocks}
        for name in plan.folder.sizes():
            if name.startswith(f"{BLOCKS}/") and name not in ours:
                plan.folder.write(name, b"{}")

    def restore(self, plan: Plan) -> None:
        """Write plan.json again if the folder was deleted during the run: --resume needs it."""
        if not plan.folder.exists(PLAN):
            self.save(plan)

    @classmethod
    def load(cls, plan: Plan, stored: dict, names: Sequence[str]) -> Self:
        """Return the stored cut. `names` are those of the files in the run's folder.

        The identities of the plan's files must equal the stored ones.
        """
        source = plan.source.restored(stored["files"])
        blocks = list(blocks_of_lines(stored["blocks"]))
        growing = stored.get("growing", False)
        more = sorted(name for name in names if name.startswith(f"{BLOCKS}/")) if growing else []
        chain = _chained("", blocks) if more else ""
        for content in map(json.loads, plan.folder.read_many(more)):
            if isinstance(content, dict) and content.get("after") == chain:
                blocks += (added := list(blocks_of_lines(content["blocks"])))
                chain = _chained(chain, added)
            # else a file was deleted, or another command has written some: what is behind it is cut again
        return cls(source, tuple(blocks), stored["seconds_a_row"], not growing, chain)


def _chained(chain: str, blocks: Sequence[Block]) -> str:
    """Return what tells blocks, in this order and behind those of `chain`, from all others."""
    for block in blocks:
        chain = hashlib.sha256(f"{chain} {json.dumps(block.lines())}".encode()).hexdigest()
    return chain


def _digest(plan: Plan, lines: list[tuple[int, ...]]) -> str:
    return hashlib.sha256(f"{plan.fingerprint} {json.dumps(lines)}".encode()).hexdigest()
