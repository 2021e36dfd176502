"""`RunFolder`: the folder or s3:// prefix of one run, and the names of its files.

Names are relative to the folder. Every file in it is whole or absent; `Receipt` says why an order of writes is enough
to know what is done.
"""

import contextlib
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import storage
from ..errors import DamagedRun
from .formats import FORMATS

PLAN, MANIFEST, REPORT = "plan.json", "manifest.json", "report.html"
COPIES = "unpacked"  # folder for the decompressed copies of inputs
_FORMAT = 1  # of the JSON files; a change that an older reader would misread makes it 2


def part_name(index: int, part_format: str) -> str:
    """Return the name of a block's part."""
    return f"parts/part-{index:05d}.{part_format}"


def receipt_name(index: int) -> str:
    """Return the name of a block's receipt."""
    return f"parts/part-{index:05d}.json"


def quarantine_name(index: int) -> str:
    """Return the name of the file with a block's bad rows."""
    return f"quarantine/part-{index:05d}.csv.gz"


@dataclass(frozen=True)
class RunFolder:
    """Where a run is: reads and writes its files by their names."""

    url: str

    def __str__(self) -> str:
        return self.url

    def path(self, name: str) -> str:
        """Return the path or URL of a file."""
        return storage.join(self.url, name)

    # files

    def read(self, name: str) -> bytes:
        """Return a whole file. Raises StorageError."""
        return storage.read(self.path(name))

    def read_many(self, names: list[str]) -> list[bytes]:
        """Return whole files, read at the same time."""
        return storage.read_many([self.path(name) for name in names])

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file: afterwards it holds all of `data`, or what it held before."""
        storage.write(self.path(name), data)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return storage.exists(self.path(name))

    def delete(self, name: str) -> None:
        """Delete a file; one that does not exist is deleted already."""
        storage.delete(self.path(name))

    @contextlib.contextmanager
    def probe(self) -> Iterator[str]:
        """Write a small file for others to look for, and yield its path; it is deleted, as are folders made for it."""
        folder = Path(self.url)
        made = [] if "://" in self.url else [path for path in (folder, *folder.parents) if not path.exists()]
        probe = f".dask-classify-probe-{secrets.token_hex(4)}"
        self.write(probe, b"")
        try:
            yield self.path(probe)
        finally:
            self.delete(probe)
            with contextlib.suppress(OSError):  # somebody else has written there
                for path in made:
                    path.rmdir()

    # JSON

    def read_json(self, name: str) -> dict[str, Any]:
        """Return plan.json or manifest.json. Raises DamagedRun where it is not such a file, StorageError where it is
        missing.
        """
        try:
            content = json.loads(self.read(name))
            if content["format"] != _FORMAT:
                raise DamagedRun(
                    f"{name} of {self} has format {content['format']}, not {_FORMAT}.", "Use the version that wrote it."
                )
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedRun(f"{name} of {self} is damaged: {error}.", "Start again with --overwrite.") from error
        return content

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write plan.json or manifest.json."""
        self.write(name, _readable({"format": _FORMAT} | content).encode())

    # the files of runs

    @cached_property
    def _ours(self) -> re.Pattern[str]:
        formats = "|".join(map(re.escape, FORMATS))
        return re.compile(
            rf"{PLAN}|{MANIFEST}|{REPORT}|{COPIES}/\d+-[0-9a-f]+\.csv|quarantine/part-\d+\.csv\.gz"
            rf"|parts/part-\d+\.({formats}|json)"
        )

    def is_ours(self, name: str) -> bool:
        """Whether runs use a file of this name; others in the folder are the user's."""
        return self._ours.fullmatch(name) is not None

    def sizes(self) -> dict[str, int]:
        """Return the sizes in bytes of all files of runs in the folder, by name."""
        return {name: size for name, size in storage.sizes(self.url).items() if self.is_ours(name)}

    def is_incomplete(self) -> bool:
        """Whether a run has begun here and has not come to its manifest."""
        return not self.exists(MANIFEST) and self.exists(PLAN)

    def uploads(self) -> list[storage.Upload]:
        """Return uploads that are under way or were cut off: of a run's files, or, as of `fetch`, to the very URL."""
        uploads = storage.unfinished_uploads(self.url)
        return [upload for upload in uploads if not upload.name or self.is_ours(upload.name)]

    def delete_unfinished(self) -> None:
        """Delete temporary files that killed processes have left."""
        for folder in ("parts", "quarantine", COPIES):
            storage.delete_unfinished(self.path(folder))


def _readable(content: dict[str, Any]) -> str:
    """JSON with a line for each value, and for each item of a long list: json's own `indent` is ten times as slow."""

    def text(value: object) -> str:
        if not isinstance(value, list) or len(value) < 2:
            return json.dumps(value)
        return "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"

    return "{\n " + ",\n ".join(f"{json.dumps(name)}: {text(value)}" for name, value in content.items()) + "\n}\n"
