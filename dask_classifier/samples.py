"""What a classifier answered, in a sample of a run's rows: numbers as a histogram, other values by how often.

Read from the beginnings of parts all over the run, so it takes a moment whatever the run's size.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from . import storage
from .borders import scan_part
from .packing import unpacked_beginning
from .receipts import NUMBERS, QUARANTINE_COLUMNS, Receipt, part_name, quarantine_name
from .result import Result

_PARTS = 32
_ROWS = 20_000
_BYTES = 512 * 2**10  # of a stored part
_BARS = 40  # of a histogram
_MOST_VALUES = 12  # that are named
_TEXT = 60  # characters of a value
_CR = "\N{SYMBOL FOR CARRIAGE RETURN}"


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
    new = [name for name in result.columns[1:] if name not in known]
    if not new or not result.rows:
        return []
    texts = _sample(result, new)
    kinds = dict(zip(result.columns, result.manifest["kinds"], strict=True))
    return [_spread(name, texts[name], kinds[name]) for name in new]


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


def _sample(result: Result, columns: list[str]) -> dict[str, list[str]]:
    """The values of columns, as text, in the first rows of parts all over the run."""
    receipts = _evenly([receipt for receipt in result.receipts if receipt.rows])
    rows_each = -(-_ROWS // len(receipts))
    if result.manifest["output_format"] == "parquet":
        from .frames import first_texts  # imports pandas, which most commands do without

        texts = [first_texts(storage.read(url), columns, rows_each) for url in result.urls(receipts)]
        return {name: [text for part in texts for text in part[name]] for name in columns}
    with ThreadPoolExecutor(_PARTS) as pool:
        parts = pool.map(lambda receipt: _first_rows(result, receipt, rows_each), receipts)
        places = [result.columns.index(name) for name in columns]
        rows = [row for part in parts for row in part]
    return {name: [row[place] for row in rows] for name, place in zip(columns, places, strict=True)}


def _evenly(receipts: list[Receipt]) -> list[Receipt]:
    """At most _PARTS of them, from the first to the last."""
    if len(receipts) <= _PARTS:
        return receipts
    return [receipts[place * (len(receipts) - 1) // (_PARTS - 1)] for place in range(_PARTS)]


def _first_rows(result: Result, receipt: Receipt, most: int) -> list[list[str]]:
    part_format = result.manifest["output_format"]
    header = bool(result.manifest["header"] and receipt.index == 0)
    name = part_name(receipt.index, part_format)
    rows = list(_beginning(result, name, receipt.bytes, part_format, most + header))
    return rows[header:]


def _beginning(result: Result, name: str, size: int, part_format: str, most: int) -> Iterator[list[str]]:
    """The first rows of a part or a quarantine file, of which the last may be cut off, and then is left out."""
    data = storage.read(storage.join(result.output, name), 0, min(size, _BYTES))
    text = unpacked_beginning(data, part_format)
    starts = [*scan_part(text).tolist(), *([len(text)] if size <= _BYTES else [])]
    stop = starts[min(most, len(starts) - 1)] if starts else 0
    csv.field_size_limit(len(text) + 1)
    # a CR in a value is not quoted by pandas, and would end a row for csv
    return csv.reader(io.StringIO(text[:stop].decode().replace("\r", _CR), newline=""))


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
    return BadRows(len(rows), tuple(reasons.most_common(_MOST_VALUES)), tuple(map(tuple, rows[:most_shown])))


def _quarantined(result: Result, receipt: Receipt) -> Iterator[list[str]]:
    return _beginning(result, quarantine_name(receipt.index), receipt.quarantine_bytes, "csv.gz", _ROWS)
