"""What a classifier answered, in a sample of a run's rows: numbers as a histogram, other values by how often.

Reads the beginnings of parts from all over the run (of Parquet, only the answers' columns), so it takes a moment
whatever the run's size.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..errors import DamagedRun, DaskClassifyError
from ..parts.formats import CSV_GZ, FORMATS
from ..parts.part_format import PartFormat
from ..parts.receipts import NUMBERS, QUARANTINE_COLUMNS, Receipt
from ..parts.run_folder import part_name, quarantine_name
from ..runs.result import Result

_PARTS = 32
_ROWS = 20_000
_BARS = 40  # of a histogram
_MOST_VALUES = 12  # that are named
_TEXT = 60  # characters of a value


@dataclass(frozen=True)
class Answers:
    """How the values of one column of the answers are spread, in a sample of `rows` rows.

    Numbers have `edges` (bars + 1) and `counts` (bars); other values have `values`, the most frequent first, with
    their counts, and `others`, the rows with any other value.
    """

    column: str
    rows: int
    missing: int  # without a value, or, where others are numbers, without a finite one
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    values: tuple[tuple[str, int], ...] = ()
    others: int = 0


def answers(result: Result, source_columns: list[str]) -> list[Answers]:
    """One for each column that the classifier added to the source's."""
    known = set(map(str, source_columns))  # without a header row they are numbers
    places = [place for place, name in enumerate(result.columns) if place and name not in known]
    if not places or not result.rows:
        return []
    texts, kinds = _sample(result, places), result.manifest["kinds"]
    return [_spread(result.columns[place], texts[place], kinds[place]) for place in places]


def _spread(name: str, texts: list[str], kind: str) -> Answers:
    if kind not in NUMBERS:
        return _by_frequency(name, texts)
    numbers = np.array([float(text) if text else np.nan for text in texts])
    finite = numbers[np.isfinite(numbers)]
    if not _has_bars(finite):
        return _by_frequency(name, texts)
    counts, edges = np.histogram(finite, bins=_bars(finite, kind))
    return Answers(name, len(texts), len(texts) - len(finite), tuple(edges.tolist()), tuple(counts.tolist()))


def _has_bars(numbers: np.ndarray) -> bool:
    """Whether there is room for bars between the smallest and the largest: not where they are almost equal, or as far
    apart as floats can be.
    """
    if not len(numbers):
        return False
    low, high = numbers.min(), numbers.max()
    with np.errstate(over="ignore"):
        width = high - low
    return bool(np.isfinite(width) and width > 4 * _BARS * np.spacing(max(abs(low), abs(high))))


def _bars(numbers: np.ndarray, kind: str) -> int | np.ndarray:
    """Whole numbers that are few have a bar each."""
    if kind != "f" and len(numbers) and np.ptp(numbers) < _BARS:
        return np.arange(numbers.min(), numbers.max() + 2) - 0.5
    return _BARS


def _by_frequency(name: str, texts: list[str]) -> Answers:
    named = Counter(text if len(text) <= _TEXT else f"{text[:_TEXT]}..." for text in texts if text)
    most = tuple(named.most_common(_MOST_VALUES))
    others = named.total() - sum(count for _, count in most)
    return Answers(name, len(texts), texts.count(""), values=most, others=others)


def _sample(result: Result, places: list[int]) -> dict[int, list[str]]:
    """The values of the columns at some places, as text, in the first rows of parts all over the run."""
    receipts = _evenly([receipt for receipt in result.receipts if receipt.rows])
    rows_each = -(-_ROWS // len(receipts))
    part_format, header = FORMATS[result.manifest["output_format"]], bool(result.manifest["header"])

    def read(receipt: Receipt) -> dict[int, list[str]]:
        name, begins_with_names = part_name(receipt.index, part_format.name), header and receipt.index == 0
        return _first_values(
            result, part_format, name, receipt.bytes, result.columns, places, rows_each, begins_with_names
        )

    with ThreadPoolExecutor(_PARTS) as pool:
        parts = list(pool.map(read, receipts))
    return {place: [text for part in parts for text in part[place]] for place in places}


def _evenly(receipts: list[Receipt]) -> list[Receipt]:
    """At most _PARTS of them, from the first to the last."""
    if len(receipts) <= _PARTS:
        return receipts
    return [receipts[place * (len(receipts) - 1) // (_PARTS - 1)] for place in range(_PARTS)]


def _first_values(
    result: Result,
    part_format: PartFormat,
    name: str,
    size: int,
    columns: Sequence[str],
    places: Sequence[int],
    most: int,
    header: bool,
) -> dict[int, list[str]]:
    """The values of some columns in a file's first rows. Raises DamagedRun; each library has errors of its own."""
    try:
        return part_format.first_values(result.folder.path(name), size, columns, places, most, header=header)
    except DaskClassifyError:
        raise
    except Exception as error:
        raise DamagedRun(
            f"{name} of {result.output} is damaged: {error}.", "`dask-classify verify` shows what to do."
        ) from error


@dataclass(frozen=True)
class BadRows:
    """Bad rows in a sample of the quarantine files: reasons by how often, and the first rows."""

    seen: int
    reasons: tuple[tuple[str, int], ...]
    first: tuple[tuple[str, ...], ...]  # source, row, reason, raw


def bad_rows(result: Result, most_shown: int = 20) -> BadRows:
    """What was set aside, and why."""
    receipts = _evenly([receipt for receipt in result.receipts if receipt.bad_rows])
    rows = [row for receipt in receipts for row in _quarantined(result, receipt)]
    reasons = Counter(row[QUARANTINE_COLUMNS.index("reason")] for row in rows)
    return BadRows(len(rows), tuple(reasons.most_common(_MOST_VALUES)), tuple(rows[:most_shown]))


def _quarantined(result: Result, receipt: Receipt) -> list[tuple[str, ...]]:
    name, places = quarantine_name(receipt.index), range(len(QUARANTINE_COLUMNS))
    size = receipt.quarantine_bytes
    values = _first_values(result, CSV_GZ, name, size, QUARANTINE_COLUMNS, places, _ROWS, header=False)
    return list(zip(*values.values(), strict=True))
