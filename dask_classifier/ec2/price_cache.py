"""Prices that AWS has told today, in the user's cache folder: each command would ask for the same ones again."""

import contextlib
import datetime
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def of_today(key: str, ask: Callable[[], float]) -> tuple[float, str]:
    """Return a price in $/h and the day (UTC) on which AWS was asked for it, at most a day ago.

    Raises what `ask` raises, and ValueError for a price that is not above 0. A cache that cannot be read or written is
    no reason to fail.
    """
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    known = {name: entry for name, entry in _load().items() if entry["day"] == today}
    if key not in known:
        dollars = ask()
        if not dollars > 0:
            raise ValueError(f"{dollars} is not a price")
        known[key] = {"day": today, "dollars": dollars}
        _save(known)
    return known[key]["dollars"], today


def _file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dask-classify" / "prices.json"


def _load() -> dict[str, dict]:
    with contextlib.suppress(OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError):  # any content
        return {
            str(key): {"day": str(entry["day"]), "dollars": float(entry["dollars"])}
            for key, entry in json.loads(_file().read_text()).items()
            if float(entry["dollars"]) > 0
        }
    return {}


def _save(known: dict[str, dict]) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_file().parent) as folder:
            new = Path(folder, "prices.json")
            new.write_text(json.dumps(known))
            new.replace(_file())
