"""The stages of a run, and how long each took."""

import time

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
