"""Statistics of the classifier's answers and of bad rows, from a sample of a run's rows.

The sample consists of the beginnings of parts that are evenly spread over the run. Of Parquet parts, only the columns
with answers are read. So it takes about the same short time for runs of any size.
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
_MOST_SHOWN = 20  # bad rows
_MAX_VALUES = 12  # shown in a table
_MAX_CHARACTERS = 60  # of a value


@dataclass(frozen=True)
class Answers:
    """The distribution of the values in one column of the answers, in a sample of `rows` rows.

    For numbers, `edges` and `counts` describe a histogram; there is one more edge than counts. For other values,
    `values` contains the most frequent ones with their counts, and `others` is the number of rows with any other value.
    """

    column: str
    rows: int
    missing: int  # rows without a value; in a histogram, rows without a finite number
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    values: tuple[tuple[str, int], ...] = ()
    others: int = 0


def answers(result: Result, source_columns: list[str]) -> list[Answers]:
    """Return the statistics of each column that the classifier added to those of the source."""
    known = set(map(str, source_columns))  # without a header row, columns are numbered
    positions = [position for position, name in enumerate(result.columns) if position and name not in known]
    if not positions or not result.rows:
        return []
    texts, kinds = _sample(result, positions), result.manifest["kinds"]
    return [_distribution(result.columns[position], texts[position], kinds[position]) for position in positions]


def _distribution(name: str, texts: list[str], kind: str) -> Answers:
    if kind not in NUMBERS:
        return _by_frequency(name, texts)
    numbers = np.array([float(text) if text else np.nan for text in texts])
    finite = numbers[np.isfinite(numbers)]
    if not _fits_histogram(finite):
        return _by_frequency(name, texts)
    counts, edges = np.histogram(finite, bins=_bars(finite, kind))
    return Answers(name, len(texts), len(texts) - len(finite), tuple(edges.tolist()), tuple(counts.tolist()))


def _fits_histogram(numbers: np.ndarray) -> bool:
    """Return whether the range of the numbers can be divided into bars: not if they are almost equal, or if the
    difference of the largest and the smallest overflows.
    """
    if not len(numbers):
        return False
    low, high = numbers.min(), numbers.max()
    with np.errstate(over="ignore"):
        width = high - low
    return bool(np.isfinite(width) and width > 4 * _BARS * np.spacing(max(abs(low), abs(high))))


def _bars(numbers: np.ndarray, kind: str) -> int | np.ndarray:
    """Return the edges for one bar per value if there are few integers; otherwise the number of bars."""
    if kind != "f" and len(numbers) and np.ptp(numbers) < _BARS:
        return np.arange(numbers.min(), numbers.max() + 2) - 0.5
    return _BARS


def _by_frequency(name: str, texts: list[str]) -> Answers:
    frequencies = Counter(
        text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}..." for text in texts if text
    )
    most_frequent = tuple(frequencies.most_common(_MAX_VALUES))
    others = frequencies.total() - sum(count for _, count in most_frequent)
    return Answers(name, len(texts), texts.count(""), values=most_frequent, others=others)


def _sample(result: Result, positions: list[int]) -> dict[int, list[str]]:
    """Return the values of some columns, as text, in the first rows of parts that are spread over the run."""
    receipts = _evenly([receipt for receipt in result.receipts if receipt.rows])
    rows_each = -(-_ROWS // len(receipts))
    part_format, header = FORMATS[result.manifest["output_format"]], bool(result.manifest["header"])

    def read(receipt: Receipt) -> dict[int, list[str]]:
        name, begins_with_names = part_name(receipt.index, part_format.name), header and receipt.index == 0
        return _first_values(
            result, part_format, name, receipt.bytes, result.columns, positions, rows_each, begins_with_names
        )

    with ThreadPoolExecutor(_PARTS) as pool:
        parts = list(pool.map(read, receipts))
    return {position: [text for part in parts for text in part[position]] for position in positions}


def _evenly(receipts: list[Receipt]) -> list[Receipt]:
    """Return at most _PARTS receipts, evenly spread from the first to the last."""
    if len(receipts) <= _PARTS:
        return receipts
    return [receipts[number * (len(receipts) - 1) // (_PARTS - 1)] for number in range(_PARTS)]


def _first_values(
    result: Result,
    part_format: PartFormat,
    name: str,
    size: int,
    columns: Sequence[str],
    positions: Sequence[int],
    max_rows: int,
    header: bool,
) -> dict[int, list[str]]:
    """Return the values of some columns in a file's first rows. Raise DamagedRun if the file cannot be read."""
    try:
        return part_format.first_values(result.folder.path(name), size, columns, positions, max_rows, header=header)
    except DaskClassifyError:
        raise
    except Exception as error:  # each library raises errors of its own
        raise DamagedRun(
            f"{name} of {result.output} is damaged: {error}.", "Run `dask-classify verify` to find out what to do."
        ) from error


@dataclass(frozen=True)
class BadRows:
    """Bad rows in a sample of the quarantine files."""

    seen: int
    reasons: tuple[tuple[str, int], ...]  # with their counts, the most frequent first
    first: tuple[tuple[str, ...], ...]  # source, row, reason, raw


def bad_rows(result: Result) -> BadRows:
    """Return the number of rows in the sample of the quarantine, their reasons, and the first rows."""
    receipts = _evenly([receipt for receipt in result.receipts if receipt.bad_rows])
    rows = [row for receipt in receipts for row in _quarantined(result, receipt)]
    reasons = Counter(row[QUARANTINE_COLUMNS.index("reason")] for row in rows)
    return BadRows(len(rows), tuple(reasons.most_common(_MAX_VALUES)), tuple(rows[:_MOST_SHOWN]))


def _quarantined(result: Result, receipt: Receipt) -> list[tuple[str, ...]]:
    name, positions = quarantine_name(receipt.index), range(len(QUARANTINE_COLUMNS))
    size = receipt.quarantine_bytes
    values = _first_values(result, CSV_GZ, name, size, QUARANTINE_COLUMNS, positions, _ROWS, header=False)
    return list(zip(*values.values(), strict=True))
