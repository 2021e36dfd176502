"""Runs of an hour or a day: names with {date} and {hour} in them, and what there is of each."""

import datetime
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .. import storage
from ..errors import DaskClassifyError, StorageError, UsageError
from ..parts.run_folder import MANIFEST, PLAN, RunFolder
from ..units import parse_seconds
from .lock import is_held

_FORMATS = {"year": "%Y", "month": "%m", "day": "%d", "date": "%Y-%m-%d", "hour": "%H"}
_FIELD = re.compile(rf"\{{({'|'.join(_FORMATS)})(_local)?\}}")
COMPLETE, PARTIAL, INCOMPLETE, RUNNING, MISSING, CHANGED = (
    "complete", "partial", "incomplete", "running", "missing", "input changed",
)  # fmt: skip
_HOUR, _DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
MOST = 10_000


def has_fields(name: str) -> bool:
    """Return whether a name has fields of a time, such as {date} and {hour}."""
    return _FIELD.search(name) is not None


def filled(name: str, at: datetime.datetime) -> str:
    """Return a name with its fields filled: {date} is 2026-11-26 and {hour} 07, in UTC; {hour_local} is local time."""

    def text(field: re.Match[str]) -> str:
        return (at.astimezone() if field[2] else at.astimezone(datetime.UTC)).strftime(_FORMATS[field[1]])

    return _FIELD.sub(text, name)


def parse_time(text: str, now: datetime.datetime) -> datetime.datetime:
    """Return the time of "2026-11-26T07", "2026-11-26 07:30" or "2026-11-26", in UTC, or of "-1h", an hour ago.

    Raise UsageError for anything else.
    """
    try:
        if text.startswith("-"):
            return now - datetime.timedelta(seconds=parse_seconds(text[1:] or "?"))
        time = datetime.datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is not a time.", "Write 2026-11-26T07, in UTC, or -1h for an hour ago.") from error


def times(name: str, since: datetime.datetime, until: datetime.datetime) -> list[datetime.datetime]:
    """Return the starts of the hours, or of the days if the name has no {hour}, that are over at `until`.

    Raise UsageError for a name without a day in it, and for more than MOST times.
    """
    if not {field[1] for field in _FIELD.finditer(name)} & {"date", "day", "hour"}:
        raise UsageError(f"{name} has no date or hour in it.", "Write, for example, 's3://bucket/runs/{date}/{hour}'.")
    hourly = any(field[1] == "hour" for field in _FIELD.finditer(name))
    first = since.astimezone(datetime.UTC).replace(minute=0, second=0, microsecond=0)
    first = first if hourly else first.replace(hour=0)
    step = _HOUR if hourly else _DAY
    if (until - first) / step > MOST:
        between = f"From {since:%Y-%m-%d} to {until:%Y-%m-%d}"
        raise UsageError(f"{between} there are more than {MOST:,} runs.", "Give a later --since.")
    return list(_between(first, until, step))


def _between(
    first: datetime.datetime, until: datetime.datetime, step: datetime.timedelta
) -> Iterator[datetime.datetime]:
    while first + step <= until:
        yield first
        first += step


@dataclass(frozen=True)
class Entry:
    """What there is of the run of one hour or day."""

    at: str  #: its start, in UTC
    output: str
    state: str  #: complete, partial, incomplete, running, missing or input changed
    rows: int | None = None
    bad_rows: int | None = None
    seconds: float | None = None
    dollars: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as a dict that can be written as JSON."""
        return asdict(self)


def look(name: str, at: datetime.datetime, *, inputs: bool = False) -> Entry:
    """Return what there is of one run; with `inputs`, also compare its input files with what they are now."""
    folder = RunFolder(storage.absolute(filled(name, at)))
    when = f"{at.astimezone(datetime.UTC):%Y-%m-%dT%H:%MZ}"
    if is_held(folder):
        return Entry(when, folder.url, RUNNING)
    if not folder.exists(PLAN):
        return Entry(when, folder.url, MISSING)
    is_changed = inputs and _has_changed(folder)
    if not folder.exists(MANIFEST):
        return Entry(when, folder.url, CHANGED if is_changed else INCOMPLETE)
    manifest = folder.read_json(MANIFEST)
    state = PARTIAL if manifest.get("partial") else COMPLETE
    if is_changed:
        state = CHANGED
    return Entry(
        when,
        folder.url,
        state,
        manifest["rows_out"],
        manifest["bad_rows"],
        manifest["seconds"],
        manifest.get("machines", {}).get("dollars"),
    )


def _has_changed(folder: RunFolder) -> bool:
    """Return whether an input file of a run is gone or has another size or version."""
    for file in folder.read_json(PLAN)["identity"]["source"]:
        if "version" not in file or file["url"] == "DataFrame":
            continue
        if not storage.exists(file["url"]):
            return True
        now = storage.identity(file["url"])
        if (now.size, now.version) != (file["size"], file["version"]):
            return True
    return False


def looked(name: str, at: datetime.datetime, *, inputs: bool = False) -> Entry:
    """Return what there is of one run; a folder that cannot be read is incomplete."""
    try:
        return look(name, at, inputs=inputs)
    except StorageError:
        raise
    except DaskClassifyError:
        return Entry(f"{at:%Y-%m-%dT%H:%MZ}", storage.absolute(filled(name, at)), INCOMPLETE)
