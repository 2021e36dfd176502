"""Options to a `Plan`, and the sizes of its blocks; nothing is written, and of the source only its beginning
is read.
"""

import functools
import hashlib
import json
import platform
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import storage, templating
from ..classifier import bundle
from ..classifier.job import Job, Trial
from ..errors import UsageError
from ..parts.formats import FORMATS
from ..parts.run_folder import COPIES, RunFolder
from ..rows import inputs
from ..rows.csv_files import MARK_SPACING
from ..rows.layouts import Layout
from ..rows.source import Source
from ..units import Allowance, Renewal, count_of, parse_count, parse_seconds

BLOCK_SECONDS = 20.0  # of work in a block: writing it to S3 takes a tenth of a second or two; and
LAST_BLOCK_SECONDS = 1.0  # in the last ones, so that no process waits long for another
BLOCKS_A_SECOND = 100  # at most: a Dask scheduler manages some 300 tasks a second
BLOCKS_A_PROCESS = 8  # at least
BLOCK_BYTES = 16 * 2**20  # at most, of CSV text: a process holds a block's text, its frame and its part
MOST_BLOCKS = 100_000
UNMEASURED_SECONDS = 0.01  # a row, where the trial died
CODE = "classifier's code"  # in a plan's identity


@dataclass(frozen=True)
class Plan:
    """What will be done, before anything is done. Made by `plan`."""

    source: Source
    package: bundle.Bundle
    output: str
    chunk_rows: int = 100
    block_rows: int | None = None  # None: by measurement
    part_format: str = "csv.gz"
    header: bool = False
    max_bad: Allowance = field(default_factory=lambda: Allowance.parse(0))
    block_timeout: float | None = None
    renew_after: Renewal | None = None
    resume: bool = False
    overwrite: bool = False

    def __repr__(self) -> str:
        words = self.words
        return f"<Plan: {words['source']}, classifier {words['classifier']}, into {words['output']}>"

    def _repr_html_(self) -> str:
        return templating.table("Plan", self.words)

    @property
    def words(self) -> dict[str, str]:
        """What is to be done, for people; without reading the source."""
        return {
            "source": str(self.source),
            "classifier": self.package.reference,
            "output": self.output,
            "chunks": f"of {self.chunk_rows:,} rows",
            "blocks": f"of {self.block_rows:,} rows" if self.block_rows else f"of about {BLOCK_SECONDS:.0f} s of work",
            "output format": self.part_format,
            "bad rows allowed": self.max_bad.text,
        }

    @property
    def identity(self) -> dict[str, object]:
        """All that shapes the bytes of the result, in names and values for people."""
        layout = self.source.layout
        return {
            "source": [file.identity for file in self.source.files],
            "delimiter": layout.delimiter,
            "encoding": layout.encoding,
            "header row": layout.header_row,
            "columns": list(layout.columns),
            "classifier": self.package.reference,
            CODE: self.package.digest,
            "slowness": self.package.slowness,
            "chunk rows": self.chunk_rows,
            "block rows": self.block_rows or "auto",
            "output format": self.part_format,
            "header": self.header,
            **{f"version of {name}": version for name, version in versions().items()},
        }

    @property
    def folder(self) -> RunFolder:
        """Where the run will be."""
        return RunFolder(self.output)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the identity, in hex."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def job(self, max_bad_rows: int, fingerprint: str = "") -> Job:
        """Return what all blocks have in common; the fingerprint is that of the receipts."""
        return Job(
            output=self.output,
            fingerprint=fingerprint,
            layout=self.source.layout,
            entry=self.package.entry,
            slowness=self.package.slowness,
            chunk_rows=self.chunk_rows,
            part_format=self.part_format,
            header=self.header,
            max_bad_rows=max_bad_rows,
        )


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions on which the bytes of a run depend."""
    names = ("dask-classify", "pandas", "numpy", "pyarrow")
    return {"python": ".".join(platform.python_version_tuple()[:2])} | {name: version(name) for name in names}


def plan(
    *,
    rows: str | int | None = None,
    input: str | Path | Sequence[str | Path] | None = None,
    output: str | Path | None = None,
    classifier: str | Callable[..., Any] | None = None,
    with_file: Sequence[str | Path] = (),
    slowness: int = 10,
    seed: int = 0,
    delimiter: str = ",",
    encoding: str = "utf-8",
    header_row: bool = True,
    chunk_rows: str | int = 100,
    block_rows: str | int = "auto",
    output_format: str = "csv.gz",
    header: bool = False,
    max_bad: str | int = 0,
    block_timeout: str | float | None = None,
    renew_after: str | int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Plan:
    """Plan a run over generated rows or CSV files; nothing is written, and only the beginning of each file is read.

    A classifier gets every value as text, exactly as the file has it. A missing value is the empty text, so
    `chunk.isna()` is False everywhere; `chunk.replace("", None)` makes missing values of empty texts, and
    `chunk.apply(pd.to_numeric, errors="coerce")` makes numbers, with NaN for what is not a number.

    Parameters
    ----------
    rows : int or str, optional
        Number of rows to generate: 250000, "250k", "10M". Give either `rows` or `input`.
    input : str, Path or sequence of these, optional
        CSV files, local or s3:// URLs, or globs.
    output : str or Path, optional
        Folder or s3:// URL of the run. Default: a new folder below `runs`.
    classifier : str or callable, optional
        A callable, "module:name", "path/to/file.py:name" or "blackbox", the demo's classifier. Required with `input`;
        "blackbox" with `rows`.
    with_file : sequence of str or Path
        Files that the classifier reads, such as a model.
    slowness : int
        Cost of the black box; 10 is about 3.5 ms per row.
    seed : int
        Seed of the generated rows.
    delimiter : str
        One ASCII character between the fields of the input.
    encoding : str
        Text encoding of the input.
    header_row : bool
        Whether the first row of each input file has the columns' names.
    chunk_rows : int or str
        Rows that the classifier gets at a time.
    block_rows : int or str
        Rows of a task and of a part, rounded up to whole chunks. "auto": about 20 seconds of work, as measured.
    output_format : str
        Format of the parts: "csv.gz", "csv.zst" or "parquet".
    header : bool
        Whether the first part begins with a header line.
    max_bad : int or str
        Bad rows, as a number or a percentage, that are quarantined before the run stops.
    block_timeout : float or str, optional
        Time after which a process is killed that still works on a block: seconds, or "10m".
    renew_after : int or str, optional
        Replace a classifier process after this number of blocks, or once it holds more memory: 1000, "2GiB".
    resume, overwrite : bool
        Go on with the run in `output`, or delete it and start over.

    Returns
    -------
    Plan
        What `run` does.

    Raises
    ------
    UsageError
        An option or the classifier is wrong.
    StorageError
        A file cannot be read.
    SourceError
        A file is not CSV, or the files have different headers.
    TypeError
        `input` is a DataFrame.
    """
    if hasattr(input, "to_csv"):
        raise TypeError(
            "input is a DataFrame, and must be files: write it with df.to_csv('in.csv'), then give input='in.csv'."
        )
    if (rows is None) == (input is None):
        raise UsageError(
            "Say what to classify: rows to generate, or input files; not both.", "Give --rows 10M or --input FILE."
        )
    if classifier is None and input is not None:
        raise UsageError(
            "No classifier is given for the input.",
            "Give --classifier path/to/file.py:name; --classifier blackbox is the demo's.",
        )
    classifier = classifier or "blackbox"
    idle = {"seed": input is not None and seed != 0, "slowness": classifier != "blackbox" and str(slowness) != "10"}
    idle["with_file"] = classifier == "blackbox" and bool(with_file)
    of_files = {"delimiter": delimiter != ",", "encoding": encoding != "utf-8", "no_header_row": not header_row}
    idle |= {name: given and rows is not None for name, given in of_files.items()}
    if useless := [name for name, given in idle.items() if given]:
        about = dict.fromkeys(of_files, "generated rows") | {"seed": "input files"}
        about = about.get(useless[0], f"the classifier {classifier}")
        raise UsageError(f"--{useless[0].replace('_', '-')} says nothing about {about}.", "Leave it out.")
    if resume and overwrite:
        raise UsageError("A run is either resumed or overwritten.", "Give --resume or --overwrite, not both.")
    if resume and output is None:
        raise UsageError("There is no telling which run to resume.", "Name its folder: --output runs/...")
    if output_format not in FORMATS:
        raise UsageError(f"{output_format!r} is no output format.", f"Choose one of {', '.join(FORMATS)}.")
    chunk_rows = _positive(chunk_rows, "number of rows")
    folder = storage.absolute(str(output)) if output is not None else str(Path("runs", new_run_id()).absolute())
    if rows is not None:
        source = inputs.generated(parse_count(rows, "number of rows"), seed)
    else:
        patterns = [str(each) for each in ([input] if isinstance(input, str | Path) else input)]
        source = inputs.look(
            patterns, Layout(_unescaped(delimiter), encoding, header_row), storage.join(folder, COPIES)
        )
    _refuse_own_input(source, folder)
    return Plan(
        source=source,
        package=bundle.create(classifier, tuple(map(str, with_file)), _positive(slowness, "slowness")),
        output=folder,
        chunk_rows=chunk_rows,
        block_rows=None if block_rows == "auto" else _whole_chunks(_positive(block_rows, "number of rows"), chunk_rows),
        part_format=output_format,
        header=header,
        max_bad=Allowance.parse(max_bad),
        block_timeout=None if block_timeout is None else parse_seconds(block_timeout),
        renew_after=None if renew_after is None else Renewal.parse(renew_after),
        resume=resume,
        overwrite=overwrite,
    )


def _refuse_own_input(source: Source, folder: str) -> None:
    for file in source.files:
        if file.url.startswith((f"{folder}/parts/", f"{folder}/quarantine/", f"{folder}/{COPIES}/")):
            raise UsageError(f"{file.url} is a part of the run in {folder}.", "Choose another --output.")


def new_run_id() -> str:
    """A name for a run: when, and something to tell it from another of the same second."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _unescaped(delimiter: str) -> str:
    return "\t" if delimiter == "\\t" else delimiter


def _positive(text: str | int, what: str) -> int:
    number = parse_count(text, what)
    if number < 1:
        raise UsageError(f"{text!r} is not a {what} of at least 1.", "Give a larger number.")
    return number


def _whole_chunks(rows: int, chunk_rows: int) -> int:
    return -(-rows // chunk_rows) * chunk_rows


def too_many_blocks(plan: Plan, rows: int) -> UsageError:
    """The error for more parts than five digits can number: their names would not sort in the order of rows."""
    return UsageError(
        f"{rows:,} rows in {count_of(len(plan.source.files), 'file')} make more than the {MOST_BLOCKS:,} parts "
        "that a run can have.",
        "Give a larger --block-rows, or leave it out. Join many small files, or classify them in several runs.",
    )


def rows_of_next(plan: Plan, *, rows: int, row_bytes: float, processes: int, trial: Trial) -> Callable[[int], int]:
    """How many rows the next block gets, with so many to go, out of `rows` of `row_bytes` bytes each.

    About BLOCK_SECONDS of work, but at least BLOCKS_A_PROCESS blocks for each process and no more than
    BLOCK_BYTES; toward the end half of each process's share of what is left, down to LAST_BLOCK_SECONDS, or to
    what the scheduler manages (guided self-scheduling: Polychronopoulos and Kuck, IEEE Transactions on Computers
    C-36, 1987). Always whole chunks, so that a chunk's rows do not depend on the blocks.
    """
    if plan.block_rows:
        return lambda left: plan.block_rows
    seconds_a_row = max(trial.seconds_a_row, 1e-9) if trial.rows else UNMEASURED_SECONDS
    largest = min(BLOCK_SECONDS / seconds_a_row, rows / (BLOCKS_A_PROCESS * processes), BLOCK_BYTES / max(row_bytes, 1))
    fewest = rows / MOST_BLOCKS * 2  # rows of a block: names of parts have five digits
    largest = max(largest, fewest)
    last_seconds = max(LAST_BLOCK_SECONDS, processes / BLOCKS_A_SECOND)
    smallest = max(min(last_seconds / seconds_a_row, largest), fewest)

    def next_rows(left: int) -> int:
        wanted = min(largest, max(smallest, left / (2 * processes)))
        return max(1, int(wanted) // plan.chunk_rows) * plan.chunk_rows

    return next_rows


def shrink(plan: Plan) -> Callable[[int, int], int]:
    """Halves a block, in whole chunks, whose text is larger than a block's may be: rows differ in length."""

    def fewer(rows: int, size: int) -> int:
        too_large = not plan.block_rows and size > BLOCK_BYTES + 2 * MARK_SPACING and rows > plan.chunk_rows
        return max(1, rows // 2 // plan.chunk_rows) * plan.chunk_rows if too_large else rows

    return fewer
