"""How a source was cut into blocks, and plan.json, in which this is stored."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Self

from ..parts.receipts import Receipt
from ..parts.run_folder import PLAN
from ..rows.blocks import BLOCK_FIELDS, Block, blocks_of_lines
from ..rows.source import Source
from .planning import Plan


@dataclass(frozen=True)
class Cut:
    """How the source was cut into blocks. plan.json stores it with the plan."""

    source: Source  # with the sizes of decompressed copies
    blocks: tuple[Block, ...]
    seconds_a_row: float  # measured by the trial; 0 if there was none

    def fingerprint(self, plan: Plan) -> str:
        """Return the fingerprint of the receipts, that of the plan and this cut.

        Two runs of a plan may measure different speeds, and so cut the source differently.
        """
        blocks = json.dumps(self.lines)
        return hashlib.sha256(f"{plan.fingerprint} {blocks}".encode()).hexdigest()

    @cached_property
    def lines(self) -> list[tuple[int, ...]]:
        """The blocks as plan.json has them."""
        return [line for block in self.blocks for line in block.lines()]

    @property
    def rows(self) -> int:
        """The number of rows in the source."""
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
            "files": [asdict(file) for file in self.source.files],
            "prediction": plan.prediction,
            "block_fields": list(BLOCK_FIELDS),
            "blocks": self.lines,
        }
        plan.folder.write_json(PLAN, content)

    def restore(self, plan: Plan) -> None:
        """Write plan.json again if the folder was deleted during the run: --resume needs it."""
        if not plan.folder.exists(PLAN):
            self.save(plan)

    @classmethod
    def load(cls, plan: Plan, stored: dict) -> Self:
        """Return the stored cut, with the plan's files and the stored sizes of their decompressed copies.

        The identities of the plan's files must equal the stored ones.
        """
        sizes = {number: stored["files"][number]["data_size"] for number, _ in plan.source.copies}
        blocks = tuple(blocks_of_lines(stored["blocks"]))
        return cls(plan.source.with_copies(sizes), blocks, stored["seconds_a_row"])
