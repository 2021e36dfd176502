"""What a classifier answered, in a sample of a run's rows: numbers as a histogram, other values by how often.

Reads the beginnings of parts from all over the run (of Parquet, only the answers' columns), so it takes a moment
whatever the run's size.
"""

import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .. import storage
from ..errors import DamagedRun, DaskClassifyError
from ..parts.formats import unpacked_beginning
from ..parts.receipts import NUMBERS, QUARANTINE_COLUMNS, Receipt, part_name, quarantine_name
from ..rows.borders import scan_part
from ..runs.result import Result

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
    read = _of_parquet if result.manifest["output_format"] == "parquet" else _of_csv
    with ThreadPoolExecutor(_PARTS) as pool:
        parts = list(pool.map(lambda receipt: _read(read, result, receipt, places, rows_each), receipts))
    return {place: [text for part in parts for text in part[place]] for place in places}


def _evenly(receipts: list[Receipt]) -> list[Receipt]:
    """At most _PARTS of them, from the first to the last."""
    if len(receipts) <= _PARTS:
        return receipts
    return [receipts[place * (len(receipts) - 1) // (_PARTS - 1)] for place in range(_PARTS)]


def _read(read, result: Result, receipt: Receipt, places: list[int], most: int) -> dict[int, list[str]]:
    """The sample of one part. Raises DamagedRun where it cannot be read; each library has errors of its own."""
    try:
        return read(result, receipt, places, most)
    except DaskClassifyError:
        raise
    except Exception as error:
        name = part_name(receipt.index, result.manifest["output_format"])
        raise DamagedRun(
            f"{name} of {result.output} is damaged: {error}.", "`dask-classify verify` shows what to do."
        ) from error


def _of_parquet(result: Result, receipt: Receipt, places: list[int], most: int) -> dict[int, list[str]]:
    from ..runs.frames import first_texts  # imports pandas, which most commands do without

    names = [result.columns[place] for place in places]
    with storage.open_ranged(result.urls([receipt])[0]) as stream:
        texts = first_texts(stream, names, most)
    return {place: texts[name] for place, name in zip(places, names, strict=True)}


def _of_csv(result: Result, receipt: Receipt, places: list[int], most: int) -> dict[int, list[str]]:
    part_format = result.manifest["output_format"]
    header = bool(result.manifest["header"] and receipt.index == 0)
    text = _beginning(result, part_name(receipt.index, part_format), receipt.bytes, part_format, header, most)
    return _columns(text, len(result.columns), places)


def _beginning(result: Result, name: str, size: int, part_format: str, header: bool, most: int) -> bytes:
    """The first whole rows of a part or a quarantine file; the last may be cut off, and then is left out."""
    data = storage.read(storage.join(result.output, name), 0, min(size, _BYTES))
    text = unpacked_beginning(data, part_format)
    starts = [*scan_part(text).tolist(), *([len(text)] if size <= _BYTES else [])]
    if len(starts) < header + 2:
        return b""
    return text[starts[header] : starts[min(header + most, len(starts) - 1)]]


def _columns(text: bytes, count: int, places: list[int]) -> dict[int, list[str]]:
    """Some of the `count` columns of CSV that pandas has written."""
    if not text:
        return {place: [] for place in places}
    import pyarrow as pa  # slow to import
    import pyarrow.csv as pa_csv

    names = [str(place) for place in range(count)]
    text = text.replace(b"\r", _CR.encode())  # pandas does not quote a CR in a value, and here it would end a row
    table = pa_csv.read_csv(
        io.BytesIO(text),
        # one block for all: a row must not be longer than a block
        pa_csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
        pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.large_string()),
            include_columns=[names[place] for place in places],
            strings_can_be_null=False,
        ),
    )
    return {place: column.to_pylist() for place, column in zip(places, table.columns, strict=True)}


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
    text = _beginning(result, quarantine_name(receipt.index), receipt.quarantine_bytes, "csv.gz", False, _ROWS)
    count = len(QUARANTINE_COLUMNS)
    return list(zip(*_columns(text, count, list(range(count))).values(), strict=True))
