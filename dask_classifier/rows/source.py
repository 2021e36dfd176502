"""Where rows come from: `InputFile`, the interface of an input, and `Source`, the inputs of one run.

To add a kind of input, write a module with a frozen dataclass that implements `InputFile` or, for files, `StoredFile`,
and add it to `inputs.FILE_KINDS`, before CsvFile, which accepts every name, or to `inputs.KINDS`.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from .. import storage
from ..errors import SourceError
from ..units import count_of, format_bytes
from .blocks import Block, Marks, Span
from .borders import Piece, Rows
from .layouts import Layout
from .row_stream import RowStream

if TYPE_CHECKING:
    import pandas as pd

SURVEY_BYTES = 16 * 2**20  # read by one survey task
_MOST_PIECES = 100  # of one survey task: small files


class InputFile(ABC):
    """One input of a source: a file, or something that takes the place of a file.

    Implementations are frozen dataclasses of plain values: they are sent to the workers and written to plan.json.
    Fields whose names begin with `data_` are not part of a run's identity.
    """

    url: str  # as the user named it
    size: int  # stored size in bytes; 0 if nothing is stored

    @abstractmethod
    def inspect(self, layout: Layout) -> tuple[Self, tuple]:
        """Read the beginning of the input: return it, inspected, with its columns.

        Parameters
        ----------
        layout : Layout
            Text format that the user gave.

        Returns
        -------
        InputFile
            The input, of which `is_inspected` is true.
        tuple
            Its columns; () if it has no rows.

        Raises
        ------
        StorageError
            The input cannot be read.
        SourceError
            The input has another format than this kind reads.
        """

    @property
    def is_inspected(self) -> bool:
        """Whether its columns are known to be those of the source. If not, its survey finds out."""
        return True

    def fits(self, first: "InputFile", expected: tuple, columns: tuple) -> bool:
        """Return whether this input, which has `columns`, can be classified with the first one, which has others."""
        return columns == expected

    def header(self, columns: tuple) -> str:
        """Return columns of this input for a message."""
        return ",".join(map(str, columns))

    @property
    def known_rows(self) -> int | None:
        """The number of rows, or None if it is not known without a survey."""
        return None

    @property
    def rows_size(self) -> int:
        """Bytes of its rows, as stored: without what stands before them."""
        return self.size

    @property
    def is_stored(self) -> bool:
        """Whether workers read it from where it is, and not from the run's folder or from nowhere."""
        return False

    @abstractmethod
    def first_rows(self, rows: int, layout: Layout) -> "Rows | pd.DataFrame":
        """Return up to `rows` of the first rows, as `read` does."""

    def rows_near(self, offset: int, rows: int, layout: Layout) -> "Rows | pd.DataFrame":
        """Return up to `rows` rows behind a byte of the stored file, or, if these cannot be found, the first ones.

        For a guess: the rows may be wrong if the byte is within quotes.
        """
        return self.first_rows(rows, layout)

    @property
    def is_packed(self) -> bool:
        """Whether the text of its rows is not in it as it is."""
        return False

    @property
    def is_compressed(self) -> bool:
        """Whether the rows take more bytes than are stored."""
        return False

    def restored(self, stored: dict[str, Any]) -> Self:
        """Return this input with what plan.json, written by an earlier attempt, has of it besides its identity."""
        return self

    def layout_of_rows(self, layout: Layout) -> Layout:
        """Return the text format of the rows that blocks read."""
        return layout

    # locating its rows, in parallel, on the workers

    def pieces(self) -> list[int]:
        """Return the starts of the pieces, each surveyed at once; [] if the rows are known without a survey."""
        return []

    @abstractmethod
    def marks(self, pieces: list) -> Marks:
        """Join the surveyed pieces, in order, into the marks of the input."""

    # reading its rows, in a classifier process

    @abstractmethod
    def read(self, span: Span, layout: Layout) -> "Rows | pd.DataFrame":
        """Return the rows of a span: text without a header, or a frame with types whose index is the first column.

        `layout` is that of `layout_of_rows`. Raise SourceError if the input has changed since the survey.
        """

    @property
    def identity(self) -> dict[str, object]:
        """The values that distinguish this version of this input from others."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("data_")}

    @property
    def words(self) -> str:
        """The input's name in messages."""
        return self.url


class NamedInput(InputFile):
    """An input that is no file, but that a user can name, as in `--input numbers:1000`."""

    @classmethod
    @abstractmethod
    def accepts(cls, name: str) -> bool:
        """Return whether this kind of input reads the name that the user gave."""

    @classmethod
    @abstractmethod
    def named(cls, name: str) -> list[Self]:
        """Return the inputs that a name stands for, in order. Raise SourceError if there are none."""


class SurveyedFile(InputFile):
    """An input whose rows must be located before they can be cut."""

    @abstractmethod
    def pieces(self) -> list[int]:
        """Return the starts of the pieces, each surveyed at once."""

    @abstractmethod
    def survey(self, start: int, layout: Layout) -> "Surveyed":
        """Locate the rows in the piece at `start`. Raise SourceError if it cannot be cut into rows."""


class CopiedFile(SurveyedFile):
    """An input whose rows can be read at any place only from a copy of its text."""

    @property
    @abstractmethod
    def needs_copy(self) -> bool:
        """Whether a run reads it from a copy in its folder."""

    @property
    def copied_by_client(self) -> bool:
        """Whether the copy is written where the plan was made, and not on a worker."""
        return False

    @abstractmethod
    def with_copy_in(self, folder: str) -> Self:
        """Return this input with its copy in another folder."""

    @abstractmethod
    def write_copy(self, layout: Layout, rows: int | None = None) -> int:
        """Write the copy, as UTF-8, and return its size in bytes; with `rows`, only that of the first rows."""


class FlowingFile(CopiedFile):
    """A file that may be read once, from its beginning, into pieces: the text of a block each."""

    @property
    @abstractmethod
    def flows(self) -> bool:
        """Whether it is read like this."""

    @abstractmethod
    def open_rows(self, layout: Layout) -> RowStream:
        """Open the file for reading its rows from the first one. Raise SourceError if it has changed."""

    @abstractmethod
    def piece(self, first_row: int, rows: int) -> str:
        """Return the URL of the piece with these rows; the first one is given by its number from 0."""


class StoredFile(SurveyedFile):
    """A file that a path, a URL, a glob or a folder names."""

    @property
    def is_stored(self) -> bool:
        """True."""
        return True

    @classmethod
    @abstractmethod
    def accepts(cls, url: str) -> bool:
        """Return whether this kind of input reads a file with this name."""

    @classmethod
    @abstractmethod
    def found(cls, url: str, identity: storage.Identity, layout: Layout, copies: str) -> Self:
        """Return a file as an input that is not inspected. `copies` is the folder for decompressed copies."""

    def _check_unchanged(self) -> None:
        """Raise SourceError if the file is not the version that was inspected."""
        now = storage.identity(self.url)
        if (now.size, now.version) != (self.size, self.version):
            raise self._changed()

    def _changed(self) -> SourceError:
        return SourceError(
            f"{self.url} has changed since the run began.", "Start a new run when nothing writes to the file any more."
        )


class Surveyed(NamedTuple):
    """The survey of a piece of an input, and, if it had not been inspected, that input with its columns."""

    piece: Piece | Marks
    file: InputFile | None = None
    columns: tuple = ()


@dataclass(frozen=True)
class Source:
    """The inputs of one run, and the text format of the user's files."""

    layout: Layout
    files: tuple[InputFile, ...]

    def __str__(self) -> str:
        """Return the name or the number of the inputs, and their size."""
        if len(self.files) == 1 and not self.files[0].is_stored:
            return self.files[0].words
        name = self.files[0].words if len(self.files) == 1 else count_of(len(self.files), "file")
        return f"{name}, {format_bytes(self.size)}"

    @property
    def size(self) -> int:
        """The stored size of all inputs in bytes."""
        return sum(file.size for file in self.files)

    @property
    def rows_size(self) -> int:
        """Bytes of the rows of all inputs, as stored; a header that was not read yet is as long as the first one."""
        header = self.files[0].size - self.files[0].rows_size
        return sum(file.rows_size if file.is_inspected else max(0, file.size - header) for file in self.files)

    @property
    def known_rows(self) -> int | None:
        """The number of rows, or None if it is not known without a survey."""
        known = [file.known_rows for file in self.files]
        return None if None in known else sum(rows for rows in known if rows)

    @property
    def copies(self) -> list[tuple[int, CopiedFile]]:
        """The inputs that need a copy before they can be cut, with their numbers."""
        copied = [(number, file) for number, file in enumerate(self.files) if isinstance(file, CopiedFile)]
        return [(number, file) for number, file in copied if file.needs_copy]

    @property
    def flowing(self) -> list[tuple[int, FlowingFile]]:
        """The inputs that are read once, from their beginnings, with their numbers."""
        files = [(number, file) for number, file in enumerate(self.files) if isinstance(file, FlowingFile)]
        return [(number, file) for number, file in files if file.flows]

    def restored(self, stored: list[dict[str, Any]]) -> "Source":
        """Return this source with what plan.json has of its files."""
        files = (file.restored(known) for file, known in zip(self.files, stored, strict=True))
        return replace(self, files=tuple(files))

    def with_copies(self, sizes: dict[int, int]) -> "Source":
        """Return this source with the sizes of the copies, given by input number."""
        files = (replace(file, data_size=sizes[n]) if n in sizes else file for n, file in enumerate(self.files))
        return replace(self, files=tuple(files))

    def first_rows(self, rows: int) -> "tuple[str, Layout, Rows | pd.DataFrame]":
        """Return the name of the first input that has rows, their text format, and up to `rows` of them."""
        for file in self.files:
            if len(first := file.first_rows(rows, self.layout)):
                return file.url, file.layout_of_rows(self.layout), first
        return "the source", self.layout, Rows(b"", [0])

    def read_by(self, block: Block) -> tuple[InputFile, ...]:
        """Return the inputs of a block's spans."""
        return tuple(self.files[span.file] for span in block.spans)

    # the survey

    def pieces(self) -> list[list[tuple[int, int]]]:
        """Return what the tasks of a survey read: lists of (file number, start of the piece)."""
        tasks, room = [], 0
        for number, file in enumerate(self.files):
            for start in file.pieces():
                if room <= 0 or len(tasks[-1]) == _MOST_PIECES:
                    tasks.append([])
                    room = SURVEY_BYTES
                tasks[-1].append((number, start))
                room -= min(file.size - start, SURVEY_BYTES)
        return tasks

    def surveyed(self, pieces: Iterable[tuple[int, Surveyed]]) -> tuple["Source", list[Marks]]:
        """Join the surveyed pieces, given as (file number, piece) in order.

        Returns
        -------
        Source
            This source, with all files inspected.
        list of Marks
            Those of each input.

        Raises
        ------
        SourceError
            The inputs have different columns.
        """
        files, pieces_of = list(self.files), defaultdict(list)
        for number, surveyed in pieces:
            pieces_of[number].append(surveyed.piece)
            if surveyed.file is not None:
                files[number] = surveyed.file
                check_columns(files, self.layout.columns, surveyed.file, surveyed.columns)
        return replace(self, files=tuple(files)), [file.marks(pieces_of[number]) for number, file in enumerate(files)]

    def joinable(self, one: int, other: int) -> bool:
        """Return whether a block may have rows of both inputs, given by their numbers."""
        first, second = self.files[one], self.files[other]
        same_format = first.layout_of_rows(self.layout) == second.layout_of_rows(self.layout)
        return type(first) is type(second) and same_format


def check_columns(files: Sequence[InputFile], expected: tuple, other: InputFile, columns: tuple) -> None:
    """Raise SourceError if an input has other columns than those before it; an empty input has none.

    It is compared with the first one, and with the first one of its kind, which may have types.
    """
    if not columns or not expected:
        return
    like = next((file for file in files if type(file) is type(other)), other)
    for one in (files[0], like):
        if not other.fits(one, expected, columns):
            headers = f"{one.header(expected)} and {other.header(columns)}"
            raise SourceError(
                f"{one.url} and {other.url} have different columns: {headers}.",
                "Classify files with different columns in separate runs. Of Parquet and JSON Lines, --columns can "
                "choose those that all files have.",
            )
