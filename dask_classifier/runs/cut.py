"""How a source was cut into blocks, and plan.json, which keeps it."""

import hashlib
import json
from dataclasses import asdict, astuple, dataclass, replace
from typing import Self

from ..parts.receipts import Receipt
from ..parts.run_folder import PLAN
from ..rows.source import Block, Source
from .planning import Plan


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

    def missing(self, receipts: tuple[Receipt, ...]) -> list[Block]:
        """Return the blocks without a receipt: what is still to do."""
        done = {receipt.index for receipt in receipts}
        return [block for block in self.blocks if block.index not in done]

    def save(self, plan: Plan) -> None:
        """Write plan.json: from now on the output is this run's."""
        content = {
            "fingerprint": plan.fingerprint,
            "identity": plan.identity,
            "max_bad": plan.max_bad.text,
            "seconds_a_row": self.seconds_a_row,
            "rows": self.rows,
            "files": [asdict(file) for file in self.source.files],
            "block_fields": list(Block.__dataclass_fields__),
            "blocks": [list(astuple(block)) for block in self.blocks],
        }
        plan.folder.write_json(PLAN, content)

    @classmethod
    def load(cls, plan: Plan, stored: dict) -> Self:
        """Return the stored cut; the files are the plan's, since their identities are equal, with the sizes of the
        decompressed copies.
        """
        files = tuple(replace(file, **was) for file, was in zip(plan.source.files, stored["files"], strict=True))
        blocks = tuple(Block(*values) for values in stored["blocks"])
        return cls(replace(plan.source, files=files), blocks, stored["seconds_a_row"])
