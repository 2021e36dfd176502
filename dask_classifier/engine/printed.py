"""What classifier processes print, as lines that can be shown beside a run's progress without flooding it."""

import threading

MOST_LINES = 50  # kept between two `take`s; the others are counted
_MOST_CHARACTERS = 500  # of a line
_MOST_BYTES = 4 * _MOST_CHARACTERS  # of a line without an end


class Printed:
    """Collects the output of processes; may be used from several threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._unfinished: dict[int, bytes] = {}  # process ID to the beginning of a line
        self._lines: list[str] = []
        self._dropped = 0

    def add(self, pid: int, text: bytes) -> None:
        """Add what a process has printed; no text means that its task is done, so that its line ends here.

        Of a line that is printed over, as a progress bar is, the last state is kept.
        """
        with self._lock:
            text = text or (b"\n" if pid in self._unfinished else b"")
            *lines, rest = (self._unfinished.pop(pid, b"") + text).split(b"\n")
            for line in lines:
                self._keep(line.decode(errors="backslashreplace"))
            if shown := rest.rstrip(b"\r"):
                self._unfinished[pid] = (shown.rpartition(b"\r")[2] + rest[len(shown) :])[-_MOST_BYTES:]

    def _keep(self, line: str) -> None:
        line = line.rstrip().rpartition("\r")[2]
        if not line:
            return
        if len(self._lines) < MOST_LINES:
            self._lines.append(line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]}...")
        else:
            self._dropped += 1

    def take(self) -> list[str]:
        """Return the lines since the last call, and how many more there were."""
        with self._lock:
            lines, self._lines = self._lines, []
            dropped, self._dropped = self._dropped, 0
        return [*lines, f"... and {dropped:,} more lines"] if dropped else lines
