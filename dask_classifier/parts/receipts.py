"""That a part exists, and how it came about."""

import builtins
import json
from dataclasses import dataclass
from typing import Any

QUARANTINE_COLUMNS = ("source", "row", "reason", "raw")


@dataclass(frozen=True)
class Receipt:
    """That a part exists, and how it came about. Written after the part."""

    fingerprint: str  #: of the plan
    index: int  #: of the block, and so of the part
    rows: int  #: in the part
    bad_rows: int  #: in the quarantine file
    bytes: int  #: of the part, as stored
    sha256: str  #: of the part, as stored
    quarantine_bytes: int
    quarantine_sha256: str
    columns: tuple[str, ...]  #: of the part, the index first; () where it has no rows
    kinds: str  #: of each column: i, u, f, b as NumPy's types have it; I, U, B nullable; O for text and all else
    first_bad_row: str  #: one sentence, or ""
    started: float  #: seconds since 1970
    seconds: float
    worker: str
    host: str
    pid: int
    first_traceback: str = ""  #: of the first bad row, where the classifier raised
    first_kind: str = ""  #: of the first bad row: the type of what the classifier raised, or "malformed"

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "Receipt":
        """From its fields, as JSON and messages have them; those that a later version has added are passed over."""
        known = {name: value for name, value in fields.items() if name in cls.__dataclass_fields__}
        return cls(**known | {"columns": tuple(fields["columns"])})

    @classmethod
    def from_json(cls, text: builtins.bytes) -> "Receipt":
        """Raises ValueError where the text is no receipt."""
        try:
            return cls.of(json.loads(text))
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a receipt: {error}") from error


NUMBERS = "iufIU"  # the kinds of columns that are numbers


def common_kinds(several: list[str]) -> str:
    """Return the kinds that hold the values of several answers: nullable ones hold the others of their type, floats
    hold integers, text holds all.
    """

    def common(kinds: tuple[str, ...]) -> str:
        if len(set(kinds)) == 1:
            return kinds[0]
        if len({kind.upper() for kind in kinds}) == 1:
            return kinds[0].upper()
        return "f" if set(kinds) <= set(NUMBERS) else "O"

    return "".join(map(common, zip(*several, strict=True)))
