"""The outline of a run that is not started yet: rows, chunks and blocks of a plan, as numbers and as text."""

from dataclasses import dataclass, replace

from .planning import Plan
from .sizing import BLOCK_SECONDS, BLOCKS_A_PROCESS

EXACT, ABOUT, AT_LEAST = "exact", "about", "at least"  # precisions of a number
_SAMPLE_ROWS = 1000


@dataclass(frozen=True)
class Outline:
    """Numbers of a plan, with their precision if they may not be exact."""

    source: list[str]
    rows: int
    rows_precision: str
    chunk_rows: int
    chunks: int
    block_rows: int | None  # None: sized by measurement
    blocks: int
    blocks_precision: str
    processes: int
    classifier: str
    output: str
    types: str  # of columns that are not text, as --dtype takes them

    @classmethod
    def of(cls, plan: Plan, processes: int) -> "Outline":
        """Outline a plan that runs on `processes` processes. Only the beginning of a file is read."""
        rows, precision = _limited(*estimated_rows(plan), plan.limit)
        chunks = max(-(-rows // plan.chunk_rows), len(plan.source.files) if rows else 0)
        if plan.block_rows:
            blocks, blocks_precision = -(-rows // plan.block_rows), precision
        else:
            blocks, blocks_precision = min(chunks, BLOCKS_A_PROCESS * processes), AT_LEAST
        return cls(
            source=[file.url for file in plan.source.files],
            rows=rows,
            rows_precision=precision,
            chunk_rows=plan.chunk_rows,
            chunks=chunks,
            block_rows=plan.block_rows,
            blocks=blocks,
            blocks_precision=blocks_precision if len(plan.source.files) == 1 or precision != EXACT else AT_LEAST,
            processes=processes,
            classifier=plan.package.reference,
            output=plan.output,
            types=plan.source.layout.words_of_types,
        )

    def estimated(self, rows: int, blocks: int | None) -> "Outline":
        """Return the outline with the numbers of an estimate, which knows the rows, and the blocks of some sizes."""
        chunks = -(-rows // self.chunk_rows)
        known = {"rows": rows, "rows_precision": EXACT, "chunks": max(chunks, len(self.source) if rows else 0)}
        if blocks is not None:
            known |= {"blocks": blocks, "blocks_precision": EXACT}
        return replace(self, **known)

    @property
    def words(self) -> dict[str, str]:
        """The same as text, for people."""
        sized = f", each of at most {BLOCK_SECONDS:.0f} s"
        sized = f" of {self.block_rows:,} rows" if self.block_rows else sized
        return {
            "source": self.source[0] if len(self.source) == 1 else f"{len(self.source):,} files",
            **({"types": self.types} if self.types else {}),
            "rows": _with_precision(self.rows, self.rows_precision),
            "chunks": f"{_with_precision(self.chunks, self.rows_precision)} of {self.chunk_rows:,} rows",
            "blocks": f"{_with_precision(self.blocks, self.blocks_precision)}{sized}",
            "processes": f"{self.processes:,}",
            "classifier": self.classifier,
            "output": self.output,
        }


def _limited(rows: int, precision: str, limit: int | None) -> tuple[int, str]:
    """Return the rows of a run that classifies only the first ones, and the precision of this number."""
    if limit is None or rows <= limit:
        return rows, precision
    return limit, EXACT if precision != ABOUT or rows > 2 * limit else ABOUT


def _with_precision(number: int, precision: str) -> str:
    return f"{number:,}" if precision == EXACT else f"{precision} {number:,}"


def estimated_rows(plan: Plan) -> tuple[int, str]:
    """Estimate the rows of the source from its size and the length of its first rows; return them with the precision.

    Compressed files have at least as many rows as their compressed size suggests.
    """
    source = plan.source
    if source.known_rows is not None:
        return source.known_rows, EXACT
    counted = [file for file in source.files if file.known_rows is not None]
    if size := sum(file.size for file in counted):  # Parquet: the first files are like the others
        return round(sum(file.known_rows for file in counted) * source.size / size), ABOUT
    precision = AT_LEAST if any(file.is_compressed for file in source.files) else ABOUT
    _, _, sample = source.first_rows(_SAMPLE_ROWS)
    packed = any(file.is_packed for file in source.files)
    if not len(sample):
        return 0, precision if packed or source.rows_size else EXACT  # a first row may be longer than what was read
    text = sample.text
    if packed and precision == ABOUT:  # the sample is UTF-8, and the files are not
        text = text.decode("utf-8", "replace").encode(source.layout.encoding, "replace")
    return round(source.rows_size / (len(text) / len(sample))), precision
