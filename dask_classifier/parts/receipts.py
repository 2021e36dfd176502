"""Receipts: a receipt proves that a part exists, and records how it was written."""

import builtins
import json
from dataclasses import dataclass
from typing import Any

QUARANTINE_COLUMNS = ("source", "row", "reason", "raw")


@dataclass(frozen=True)
class Receipt:
    """The proof that a part exists, and how it was written. A receipt is written after its part."""

    fingerprint: str  #: of the plan and its blocks
    index: int  #: of the block, and so of the part
    rows: int  #: in the part
    bad_rows: int  #: in the quarantine file
    bytes: int  #: of the part, as stored
    sha256: str  #: of the part, as stored
    quarantine_bytes: int
    quarantine_sha256: str
    columns: tuple[str, ...]  #: of the part, the index first; () if it has no rows
    kinds: str  #: of each column: i, u, f, b as in NumPy; I, U, B if nullable; M for dates; O for all else
    first_bad_row: str  #: its description, or ""
    started: float  #: seconds since 1970
    seconds: float
    worker: str
    host: str
    pid: int
    first_traceback: str = ""  #: of the first bad row, if the classifier raised
    first_kind: str = ""  #: of the first bad row: the type of the classifier's exception, or "malformed"

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "Receipt":
        """Make a receipt from its fields, as in JSON and messages. Fields added by a later version are ignored."""
        known = {name: value for name, value in fields.items() if name in cls.__dataclass_fields__}
        return cls(**known | {"columns": tuple(fields["columns"])})

    @classmethod
    def from_json(cls, text: builtins.bytes) -> "Receipt":
        """Parse a receipt. Raise ValueError if the text is not one."""
        try:
            return cls.of(json.loads(text))
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a receipt: {error}") from error


NUMBERS = "iufIU"  # the kinds of columns that are numbers


def common_kinds(several: list[str]) -> str:
    """Return the kinds of columns that fit the values of several answers.

    Nullable kinds fit the values of their type, floats fit integers, and text fits everything.
    """

    def common(kinds: tuple[str, ...]) -> str:
        if len(set(kinds)) == 1:
            return kinds[0]
        if len({kind.upper() for kind in kinds}) == 1:
            return kinds[0].upper()
        return "f" if set(kinds) <= set(NUMBERS) else "O"

    return "".join(map(common, zip(*several, strict=True)))
