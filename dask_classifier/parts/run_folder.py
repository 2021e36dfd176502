"""`RunFolder`: the folder or s3:// prefix of one run, and the names of its files.

Names are relative to the folder. Each file is complete or does not exist. A receipt is written after the other files of
its block, so a block with a receipt is done.
"""

import contextlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import s3, storage
from ..errors import DamagedRun
from .formats import FORMATS

PLAN, MANIFEST, REPORT = "plan.json", "manifest.json", "report.html"
MISSING = "missing.json"  # of a partial run: the rows that it does not have
LOCK = "run.lock"  # while a command is at work
DETACHED = "detached.json"  # of a run that goes on without the command that started it: where it is, and how far
COPIES = "unpacked"  # folder for the pieces of compressed inputs, and for the rows of a DataFrame
PACKAGES = "environment"  # folder for the packages that instances install
BLOCKS = "blocks"  # folder for blocks that are known, while others are not known yet
_FORMAT = 1  # of the JSON files; to be raised with a change that an older version would misread
_NEEDED = {  # entries without which a file cannot be used
    PLAN: ("identity", "files", "blocks"),
    MANIFEST: ("parts", "rows_in", "rows_out", "bad_rows", "seconds"),
}


def part_name(index: int, part_format: str) -> str:
    """Return the name of a block's part."""
    return f"parts/part-{index:05d}.{part_format}"


def blocks_name(first: int) -> str:
    """Return the name of a file with blocks, the first of which is number `first`."""
    return f"{BLOCKS}/{first:05d}.json"


def single_file_name(part_format: str) -> str:
    """Return the name of the file with all rows."""
    return f"result.{part_format}"


def receipt_name(index: int) -> str:
    """Return the name of a block's receipt."""
    return f"parts/part-{index:05d}.json"


def quarantine_name(index: int) -> str:
    """Return the name of the file with a block's bad rows."""
    return f"quarantine/part-{index:05d}.csv.gz"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, with access to its files by name."""

    url: str

    def __str__(self) -> str:
        return self.url

    def path(self, name: str) -> str:
        """Return the path or URL of a file."""
        return storage.join(self.url, name)

    # files

    def read(self, name: str) -> bytes:
        """Return the contents of a file. Raise StorageError if it cannot be read."""
        return storage.read(self.path(name))

    def read_many(self, names: list[str]) -> list[bytes]:
        """Return the contents of files, read at the same time."""
        return storage.read_many([self.path(name) for name in names])

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically: afterwards it contains all of `data`, or what it contained before."""
        storage.write(self.path(name), data)

    def exists(self, name: str) -> bool:
        """Return whether a file exists."""
        return storage.exists(self.path(name))

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        storage.delete(self.path(name))

    # JSON

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the contents of plan.json or manifest.json.

        Raise DamagedRun if the file is damaged or has another format, StorageError if it is missing.
        """
        try:
            content = json.loads(self.read(name))
            if content["format"] != _FORMAT:
                raise DamagedRun(
                    f"{name} of {self} has format {content['format']}, not {_FORMAT}.",
                    "Use the version of dask-classify that wrote it.",
                )
            for needed in _NEEDED.get(name, ()):
                content[needed]
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedRun(f"{name} of {self} is damaged: {error}.", "Start over with --overwrite.") from error
        return content

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write plan.json or manifest.json."""
        self.write(name, as_json(content))

    # files that belong to runs

    @cached_property
    def _ours(self) -> re.Pattern[str]:
        formats = "|".join(map(re.escape, FORMATS))
        return re.compile(
            rf"{PLAN}|{MANIFEST}|{MISSING}|{REPORT}|{COPIES}/\d+-[0-9a-f]+\.csv|quarantine/part-\d+\.csv\.gz"
            rf"|{BLOCKS}/\d+\.json|parts/part-\d+\.({formats}|json)|result\.({formats})"
        )

    def probe(self) -> contextlib.AbstractContextManager[str]:
        """Write a small file for others to look for, for a `with` block."""
        return storage.probe(self.path("parts"))

    def is_ours(self, name: str) -> bool:
        """Return whether a run uses files with this name. All others in the folder belong to the user."""
        return self._ours.fullmatch(name) is not None

    def sizes(self) -> dict[str, int]:
        """Return the sizes in bytes of all files in the folder that belong to runs, by name."""
        return {name: size for name, size in storage.sizes(self.url).items() if self.is_ours(name)}

    def uploads(self) -> list[s3.Upload]:
        """Return unfinished uploads, of a run's files or, as `fetch` makes them, to the URL itself."""
        uploads = s3.unfinished_uploads(self.url)
        packages = f"{PACKAGES}/environment-"
        return [one for one in uploads if not one.name or self.is_ours(one.name) or one.name.startswith(packages)]

    def delete_unfinished(self) -> None:
        """Delete temporary files left by killed processes, and folders that are empty."""
        for folder in ("parts", "quarantine", COPIES, BLOCKS):
            storage.delete_unfinished(self.path(folder))
        if storage.is_local(self.url):
            for folder in (COPIES, BLOCKS):
                with contextlib.suppress(OSError):
                    Path(self.path(folder)).rmdir()
            for path in Path(self.url).glob(f".result.*{storage.TEMPORARY}*"):
                storage.delete(str(path))


def as_json(content: dict[str, Any]) -> bytes:
    """Return the bytes of plan.json or manifest.json, with the format's version."""
    return _readable({"format": _FORMAT} | content).encode()


def _readable(content: dict[str, Any]) -> str:
    """Return JSON with one line per value, and per item of a list: json's own `indent` is ten times slower."""

    def text(value: object) -> str:
        if not isinstance(value, list) or len(value) < 2:
            return json.dumps(value)
        return "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"

    return "{\n " + ",\n ".join(f"{json.dumps(name)}: {text(value)}" for name, value in content.items()) + "\n}\n"
