"""Output of classifier processes, collected as lines and limited, so that it can be shown next to the progress bar."""

import threading

MAX_LINES = 50  # kept between two calls of `take`; further lines are only counted
_MAX_CHARACTERS = 500  # per line
_MAX_BYTES = 4 * _MAX_CHARACTERS  # of an unfinished line


class Printed:
    """Collect the output of processes. All methods are thread-safe."""

    def __init__(self):
        self._lock = threading.Lock()
        self._unfinished: dict[int, bytes] = {}  # by process ID: the beginning of a line
        self._lines: list[str] = []
        self._dropped = 0

    def add(self, pid: int, text: bytes) -> None:
        """Add output of a process. An empty `text` means that its task is done, and ends an unfinished line.

        If carriage returns overwrite a line, as progress bars do, its last state is kept.
        """
        with self._lock:
            text = text or (b"\n" if pid in self._unfinished else b"")
            *lines, rest = (self._unfinished.pop(pid, b"") + text).split(b"\n")
            for line in lines:
                self._keep(line.decode(errors="backslashreplace"))
            if visible := rest.rstrip(b"\r"):
                self._unfinished[pid] = (visible.rpartition(b"\r")[2] + rest[len(visible) :])[-_MAX_BYTES:]

    def _keep(self, line: str) -> None:
        line = line.rstrip().rpartition("\r")[2]
        if not line:
            return
        if len(self._lines) < MAX_LINES:
            self._lines.append(line if len(line) <= _MAX_CHARACTERS else f"{line[:_MAX_CHARACTERS]}...")
        else:
            self._dropped += 1

    def take(self) -> list[str]:
        """Return the lines since the last call, followed by a line with the number of lines that were dropped."""
        with self._lock:
            lines, self._lines = self._lines, []
            dropped, self._dropped = self._dropped, 0
        return [*lines, f"... and {dropped:,} more lines"] if dropped else lines
