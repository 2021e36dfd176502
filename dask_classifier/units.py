"""Parse numbers as people write them ("10M", "1%", "90s"), and format numbers for people."""

import contextlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from dask.utils import format_bytes, parse_bytes, parse_timedelta

from .errors import UsageError

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_GROUPED = re.compile(r"\d{1,3}(,\d{3})+", re.ASCII)
_COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgb]?)", re.IGNORECASE)

__all__ = [
    "Allowance",
    "Renewal",
    "count_of",
    "format_bytes",
    "format_dollars",
    "format_seconds",
    "format_share",
    "parse_count",
    "parse_dollars",
    "parse_seconds",
]


def parse_count(text: str | int, what: str = "number") -> int:
    """Parse a count: 250000, "250_000", "250k", "10M", "1.5M", "2G".

    Raise UsageError, naming `what` it should be, if the text is not a whole number of at least 0.
    """
    clean = str(text).replace("_", "").strip()
    clean = clean.replace(",", "") if _GROUPED.fullmatch(clean) else clean  # 1,5M is refused, since it may mean 1.5M
    match = _COUNT.fullmatch(clean)
    count = float(match[1]) * _SUFFIXES[match[2].lower()] if match else math.nan
    if not math.isfinite(count) or count != int(count):
        raise UsageError(f"{text!r} is not a {what}.", "Write a whole number: 250000, 250k, 10M.")
    return int(clean) if clean.isdigit() else round(count)


def parse_seconds(text: str | float, what: str = "time") -> float:
    """Parse a time and return it in seconds: 90, "90s", "10m", "2h". Raise UsageError if it is not a positive time."""
    try:
        seconds = parse_timedelta(text, default="s")
    except (ValueError, LookupError, OverflowError):
        seconds = None
    if not seconds or not 0 < seconds < math.inf:
        raise UsageError(f"{text!r} is not a {what}.", "Write a number with a unit: 90s, 10m, 2h.")
    return float(seconds)


def roughly(number: int) -> int:
    """Return an estimate with two digits that are not zero: 204,369 becomes 200,000."""
    return int(float(f"{number:.1e}"))


def count_of(number: int, what: str) -> str:
    """Return a number with a noun that agrees: "1 bad row", "2,000 bad rows"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def parse_dollars(text: str | float, what: str, example: str) -> float:
    """Parse 3, "0.35" or "$0.35". Raise UsageError, naming `what` it should be, unless it is above 0."""
    try:
        dollars = float(str(text).removeprefix("$"))
    except ValueError:
        dollars = 0.0
    if not 0 < dollars < math.inf:
        raise UsageError(f"{text!r} is not a {what}.", f"Give a number of $: {example}.")
    return dollars


def format_dollars(dollars: float) -> str:
    """Format an amount without the sign: 1234.5 as "1,234.50", 0.0012 as "0.001"."""
    return f"{dollars:.1g}" if 0 < dollars < 0.01 else f"{dollars:,.2f}"


def format_seconds(seconds: float) -> str:
    """Format a time: 17.2 as "17.2s", 1043 as "17m23s", 4000 as "1h06m40s"."""
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m{rest:02d}s" if hours else f"{minutes}m{rest:02d}s"


def format_share(share: float) -> str:
    """Format a share: 0.967 as "96.7%", 1 as "100%". Only exactly 0 and 1 are shown as 0% and 100%."""
    near = round(min(share, 1 - share), 12)
    if near <= 0:
        return f"{share:.0%}"
    digits = 1 if near >= 0.0005 else min(9, math.ceil(-math.log10(100 * near)))
    return f"{100 * share:.{digits}f}%"


@dataclass(frozen=True)
class Renewal:
    """When to replace a classifier process: after a number of blocks, or when it uses more memory than `bytes`."""

    text: str
    blocks: int | None = None
    bytes: int | None = None

    @classmethod
    def parse(cls, text: str | int) -> "Renewal":
        """Parse "1000", "1000 blocks" or "2GiB". Raise UsageError if the text is none of these."""
        text = str(text).strip()
        match = re.fullmatch(r"([\d_,]+)\s*(?:blocks?)?", text)
        if match and (blocks := parse_count(match[1], "number of blocks")) > 0:
            return cls(text, blocks=blocks)
        with contextlib.suppress(ValueError, OverflowError):
            if (size := parse_bytes(text)) > 0:
                return cls(text, bytes=size)
        raise UsageError(f"{text!r} is not a size or a number of blocks.", "Write one of these: 2GiB, 1000 blocks.")

    def is_due(self, blocks: int, memory: Callable[[], int]) -> bool:
        """Return whether to replace a process after `blocks` blocks; `memory` is called only if it matters."""
        return blocks >= self.blocks if self.blocks else memory() > self.bytes


@dataclass(frozen=True)
class Allowance:
    """How many bad rows a run may have: a count, or a share of all its rows."""

    text: str
    count: int | None = None
    share: Fraction | None = None

    @classmethod
    def parse(cls, text: str | int) -> "Allowance":
        """Parse "12", "10k" or "0.5%". Raise UsageError if the text is neither a count nor a percentage."""
        text = str(text).strip()
        if not text.endswith("%"):
            return cls(text, count=parse_count(text, "number of bad rows"))
        try:
            share = Fraction(text[:-1].strip()) / 100  # with a float, 0.03% of 10,000 would be 2
        except (ValueError, ZeroDivisionError):
            share = Fraction(-1)
        if not 0 <= share <= 1:
            raise UsageError(
                f"{text!r} is not a percentage from 0% to 100%.", "Write a number or a percentage: 10, 0.5%."
            )
        return cls(text, share=share)

    def of(self, rows: int) -> int:
        """Return the number of bad rows allowed among `rows` rows."""
        return self.count if self.count is not None else int(self.share * rows)
