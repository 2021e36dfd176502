"""The stages of a run, how long each took, and the speed of its main one."""

import time
from collections.abc import Mapping
from typing import Any

from .manifest import Stage
from .progress import CLASSIFYING, Progress


class Stages:
    """Report each stage of a run as it begins, and record its time."""

    def __init__(self, progress: Progress):
        self.progress, self.tell_page = progress, lambda **news: None
        self.entered: list[tuple[str, float]] = []

    def enter(self, name: str) -> None:
        """Begin a stage, and so end the one before."""
        now, news = time.time(), {"stage": name}
        if self.entered and self.entered[-1][0] == CLASSIFYING:
            news["classified"] = now - self.entered[-1][1]
            self.progress.classified(news["classified"])
        self.entered.append((name, now))
        self.progress.stage(name)
        self.tell_page(**news)

    def spent(self) -> list[Stage]:
        """Return each stage until now."""
        ends = [began for _, began in self.entered[1:]] + [time.time()]
        return [Stage(name, began, end - began) for (name, began), end in zip(self.entered, ends, strict=True)]


def classifying_speed(manifest: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the speed of a complete run, as shown in the terminal, the report and the dashboard.

    Parameters
    ----------
    manifest : Mapping
        The contents of manifest.json.

    Returns
    -------
    tuple of float, or None
        Seconds of the stage `classifying`, and rows per second in it: rows of this attempt, including bad ones, but not
        those of blocks that an earlier attempt had finished. None if the manifest does not have this stage, because an
        earlier version wrote it, or if nothing was classified.
    """
    seconds = sum(spent for name, _, spent in manifest.get("stages", ()) if name == CLASSIFYING)
    resumed = set(manifest.get("resumed", ()))
    rows = sum(part["rows"] + part["bad_rows"] for part in manifest["parts"] if part["index"] not in resumed)
    return (seconds, rows / seconds) if seconds > 0 and rows else None
