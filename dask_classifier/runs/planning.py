"""Options to a `Plan`. Nothing is written, and only the beginning of the source is read."""

import functools
import hashlib
import json
import platform
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from .. import storage, templating
from ..classifier import bundle
from ..classifier.job import Job
from ..classifier.local_packages import contents
from ..classifier.requirements import pinned, version_of
from ..errors import UsageError
from ..parts.formats import FORMATS
from ..parts.run_folder import COPIES, RunFolder
from ..rows import inputs
from ..rows.frame_input import is_frame
from ..rows.layouts import Layout, by_number
from ..rows.source import Source
from ..rows.types import parse_types
from ..units import Allowance, Renewal, parse_count, parse_seconds
from .refusals import refuse_own_input, refuse_useless, refuse_useless_for
from .sizing import BLOCK_SECONDS

CODE = "classifier's code"  # in a plan's identity


class ArrowTable(Protocol):
    """A table of pyarrow, polars or any library that offers Arrow's C stream; pandas' DataFrame is one, too."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return a capsule with the stream."""
        ...


Input = str | Path | Sequence[str | Path] | ArrowTable


@dataclass(frozen=True)
class Plan:
    """What a run will do. Made by `plan`."""

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
    single_file: bool = False
    limit: int | None = None  # rows at most
    resume: bool = False
    overwrite: bool = False
    prediction: dict[str, Any] | None = None  # of its time and cost: for the record, and not for its identity

    def __repr__(self) -> str:
        words = self.words
        return f"<Plan: {words['source']}, classifier {words['classifier']}, into {words['output']}>"

    def _repr_html_(self) -> str:
        return templating.table("Plan", self.words)

    @property
    def words(self) -> dict[str, str]:
        """Labelled lines for people, made without reading the source."""
        return {
            "source": str(self.source),
            **({"types": types} if (types := self.source.layout.words_of_types) else {}),
            "classifier": self.package.reference,
            "output": self.output,
            **({"rows": f"the first {self.limit:,}"} if self.limit is not None else {}),
            "chunks": f"of {self.chunk_rows:,} rows",
            "blocks": f"of {self.block_rows:,} rows" if self.block_rows else f"of about {BLOCK_SECONDS:.0f} s of work",
            "output format": self.part_format,
            "bad rows allowed": self.max_bad.text,
        }

    @property
    def identity(self) -> dict[str, object]:
        """Everything that determines the bytes of the result, as names and values for people."""
        layout = self.source.layout
        return {
            "source": [file.identity for file in self.source.files],
            "delimiter": layout.delimiter,
            "encoding": layout.encoding,
            "header row": layout.header_row,
            "columns": list(layout.columns),
            **({"chosen columns": list(layout.wanted)} if layout.wanted else {}),
            **({"typed": True} if layout.typed else {}),
            **({"types": dict(layout.types)} if layout.types else {}),
            **({"guessed types": list(layout.guessed)} if layout.guessed else {}),
            **({"missing values": list(layout.na_values)} if layout.na_values else {}),
            **({"index": layout.index} if layout.index != "" else {}),
            "classifier": self.package.reference,
            CODE: self.package.digest,
            "slowness": self.package.slowness,
            **({"rows at most": self.limit} if self.limit is not None else {}),
            "chunk rows": self.chunk_rows,
            "block rows": self.block_rows or "auto",
            "output format": self.part_format,
            "header": self.header,
            **{f"version of {name}": version for name, version in self.versions.items()},
            **{f"content of {name}": digest for name, digest in self.package.contents},
        }

    @property
    def versions(self) -> dict[str, str]:
        """The versions on which the bytes of the run depend, by name."""
        return versions() | dict(map(version_of, self.package.requirements))

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
    input: Input | None = None,
    classifier: str | Callable[..., Any] | None = None,
    output: str | Path | None = None,
    *,
    rows: str | int | None = None,
    with_file: Sequence[str | Path] = (),
    slowness: int = 10,
    seed: int = 0,
    delimiter: str = ",",
    encoding: str = "utf-8",
    header_row: bool = True,
    columns: str | Sequence[str] | None = None,
    typed: bool = False,
    dtype: str | Mapping[str, str] | None = None,
    na_values: str | Sequence[str] | None = None,
    infer_types: bool = False,
    index: str = "",
    limit: str | int | None = None,
    chunk_rows: str | int = 100,
    block_rows: str | int = "auto",
    output_format: str = "csv.gz",
    header: bool = False,
    max_bad: str | int = 0,
    block_timeout: str | float | None = None,
    renew_after: str | int | None = None,
    single_file: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    requirements: str | Path | Sequence[str] | None = None,
    with_env: bool = False,
) -> Plan:
    """Plan a run over files, a DataFrame or generated rows.

    Nothing is written, and only the beginning of the first files is read. Unless `typed` is true, a classifier gets
    every value as text, exactly as the file has it. A missing value is the empty text, so `chunk.isna()` is False
    everywhere; `chunk.replace("", None)` makes missing values of empty texts, and `chunk.apply(pd.to_numeric,
    errors="coerce")` makes numbers, with NaN for what is not a number.

    Parameters
    ----------
    input : str, Path, sequence of these, DataFrame or Arrow table, optional
        Files, folders or globs, local or s3:// URLs: CSV, Parquet (.parquet, .pq) or JSON Lines (.jsonl, .ndjson). A
        pandas DataFrame, or a table with an Arrow C
        stream (pyarrow, polars), is written to the run's folder as CSV and classified like a file: its values are text,
        too. The index of a DataFrame becomes the first column.
    classifier : str or callable, optional
        A callable, "module:name", "path/to/file.py:name" or "blackbox", the demo's classifier. Required with `input`;
        "blackbox" with `rows`.
    output : str or Path, optional
        Folder or s3:// URL of the run. Default: a new folder below `runs`.
    rows : int or str, optional
        Number of rows to generate: 250000, "250k", "10M". Give either `rows` or `input`.
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
    columns : str or sequence of str, optional
        The columns that the classifier gets, in this order, as a list or joined by commas. Only these are read from
        Parquet. Default: all.
    typed : bool
        Whether values of Parquet files have the types of the file, as `pandas.read_parquet` gives them with
        `dtype_backend="pyarrow"`, and not their text. Missing values are then missing, not empty text.
    dtype : str or mapping of str to str, optional
        Columns of CSV or JSON Lines that the classifier gets as values of a type, as from `pandas.read_csv(dtype=...)`:
        `{"price": "float64", "when": "datetime64"}` or "price=float64,when=datetime64". Dates are in the format of
        ISO 8601. A value of another type makes a bad row. Default: all is text.
    na_values : str or sequence of str, optional
        Texts that are missing values in the columns of `dtype`, as a list or joined by commas, in addition to those of
        `pandas.read_csv`, such as "", NA and null.
    infer_types : bool
        Whether other columns of CSV or JSON Lines get a type, too, if rows from 20 places of the source have only
        whole numbers, numbers, dates or booleans in them: Int64, float64, datetime64, boolean. The index remains text.
    index : str
        The column that becomes the index of a chunk, and the first column of the result; "none" for the number of the
        row in its file, from 1, as a column named row. Default: the first column.
    limit : int or str, optional
        Classify only so many rows, the first ones, to try something out. Not more of the input is read than needed.
    chunk_rows : int or str
        Rows that the classifier gets at a time.
    block_rows : int or str
        Rows of a task and of a part, rounded up to whole chunks. "auto": about 20 seconds of work, as measured.
    output_format : str
        Format of the parts: "csv.gz", "csv.zst", "parquet" or "jsonl.gz".
    header : bool
        Whether the first part begins with a header line.
    max_bad : int or str
        Bad rows, as a number or a percentage, that are quarantined before the run stops.
    block_timeout : float or str, optional
        Time after which a process is killed that still works on a block: seconds, or "10m".
    renew_after : int or str, optional
        Replace a classifier process after this number of blocks, or once it holds more memory: 1000, "2GiB".
    single_file : bool
        Whether the workers write all rows to one file, too: `result.csv.gz` in the run's folder.
    resume, overwrite : bool
        Go on with the run in `output`, or delete it and start over.
    requirements : str, Path or sequence of str, optional
        What the classifier needs: a file like pip's requirements.txt, or requirements ("scikit-learn>=1.5"). Those in
        a block `# /// script` of the classifier's file (PEP 723) are added. The versions that are installed here
        become part of the run's identity, and a worker that has others is refused.
    with_env : bool
        Whether the classifier needs all packages that are installed here.

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
        `input` or `classifier` is of a kind that cannot be used.

    Examples
    --------
    >>> plan = dc.plan("in.csv", "mine.py:classify", "runs/today")  # doctest: +SKIP
    >>> plan = dc.plan(rows="10k", output="runs/demo")  # doctest: +SKIP
    """
    if (rows is None) == (input is None):
        raise UsageError(
            "Say what to classify: rows to generate, or input files; not both.", "Use --rows 10M or --input FILE."
        )
    if classifier is None and input is not None:
        raise UsageError(
            "No classifier is given for the input.",
            "Use --classifier path/to/file.py:name; --classifier blackbox is the demo's.",
        )
    layout = Layout(
        delimiter=_unescaped(delimiter),
        encoding=encoding,
        header_row=header_row,
        wanted=_split(columns),
        typed=typed,
        types=parse_types(dtype) if dtype else (),
        na_values=_split(na_values),
        index=index,
    )
    layout = layout if header_row else by_number(layout)
    classifier = classifier or "blackbox"
    refuse_useless(
        input, classifier, layout, seed=seed, slowness=slowness, with_file=with_file, infer_types=infer_types
    )
    if resume and overwrite:
        raise UsageError("A run cannot be both resumed and overwritten.", "Use --resume or --overwrite, not both.")
    if resume and output is None:
        raise UsageError("The run to resume is not given.", "Name its folder: --output runs/...")
    if output_format not in FORMATS:
        raise UsageError(f"{output_format!r} is not an output format.", f"Choose one of {', '.join(FORMATS)}.")
    chunk_rows = _positive(chunk_rows, "number of rows")
    package = bundle.create(classifier, tuple(map(str, with_file)), _positive(slowness, "slowness"))
    pins = pinned(requirements, package, everything=with_env)
    folder = storage.absolute(str(output)) if output is not None else str(Path("runs", new_run_id()).absolute())
    return Plan(
        source=_source(rows, seed, input, layout, folder, infer_types=infer_types),
        package=replace(package, requirements=pins, contents=tuple(contents(dict(map(version_of, pins))).items())),
        output=folder,
        chunk_rows=chunk_rows,
        block_rows=None if block_rows == "auto" else _whole_chunks(_positive(block_rows, "number of rows"), chunk_rows),
        part_format=output_format,
        header=header,
        max_bad=Allowance.parse(max_bad),
        block_timeout=None if block_timeout is None else parse_seconds(block_timeout),
        renew_after=None if renew_after is None else Renewal.parse(renew_after),
        limit=None if limit is None else _positive(limit, "number of rows"),
        single_file=single_file,
        resume=resume,
        overwrite=overwrite,
    )


def _source(
    rows: str | int | None, seed: int, input: Input | None, layout: Layout, folder: str, *, infer_types: bool
) -> Source:
    """Return the source that the arguments name. Raise TypeError for an input of another kind."""
    copies = storage.join(folder, COPIES)
    if rows is not None:
        return inputs.generated(parse_count(rows, "number of rows"), seed)
    if is_frame(input):
        return inputs.of_frame(input, copies)
    names = [input] if isinstance(input, str | Path) else list(input) if isinstance(input, list | tuple) else [input]
    if not names:
        raise UsageError("The list of input files is empty.", "Name at least one file: --input FILE.")
    for name in names:
        if not isinstance(name, str | Path):
            raise TypeError(
                f"input is of type {type(name).__name__}. Give a path, a URL, a glob, a list of these, a pandas "
                "DataFrame or an Arrow table; write other data to files first."
            )
    source = inputs.look([str(name) for name in names], layout, copies)
    refuse_own_input(source, folder)
    refuse_useless_for(source, infer_types=infer_types)
    return inputs.with_types(source) if infer_types else source


def new_run_id() -> str:
    """Return a name for a run: its start, and a random suffix for runs of the same second."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _unescaped(delimiter: str) -> str:
    return "\t" if delimiter == "\\t" else delimiter


def _positive(text: str | int, what: str) -> int:
    number = parse_count(text, what)
    if number < 1:
        raise UsageError(f"{text!r} is not a {what} of at least 1.", "Give a larger number.")
    return number


def _split(names: str | Sequence[str] | None) -> tuple[str, ...]:
    return tuple(names.split(",") if isinstance(names, str) else names or ())


def _whole_chunks(rows: int, chunk_rows: int) -> int:
    return -(-rows // chunk_rows) * chunk_rows
