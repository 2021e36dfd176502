"""The live display of a run in a notebook cell."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..dashboard.progress_bar import progress_bar
from ..errors import Interrupted
from ..runs.progress import Progress
from ..units import format_seconds

_UPDATE_SECONDS = 0.5


def following() -> Progress:
    """Return the default Progress of a run: one that displays it in Jupyter, and a silent one elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return CellProgress() if hasattr(shell, "kernel") else Progress()


class CellProgress(Progress):
    """Show a run below the cell that started it."""

    def __init__(self):
        super().__init__()
        self._began = time.monotonic()
        self._dashboard = ""
        self._over = threading.Event()

    def connected(self, dashboard: str | None, processes: int) -> None:
        """Remember the dashboard's address."""
        self._dashboard = dashboard or ""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the run within a `with` block, and its final state afterwards."""
        from IPython.display import HTML, display

        handle = display(HTML(self._html()), display_id=True)
        updates = threading.Thread(target=self._keep_showing, args=(handle,), daemon=True)
        updates.start()
        try:
            yield
            self.stage("complete")
        except KeyboardInterrupt:
            self.stage("interrupted")
            now = self.snapshot()
            raise Interrupted(
                f"Interrupted: {now.blocks_done:,} of {now.blocks:,} finished blocks are kept.",
                "Run the same plan with resume=True to go on.",
            ) from None
        except BaseException:
            self.stage("failed")
            raise
        finally:
            self._over.set()
            updates.join()
            handle.update(HTML(self._html()))

    def _keep_showing(self, handle) -> None:
        from IPython.display import HTML

        while not self._over.wait(_UPDATE_SECONDS):
            handle.update(HTML(self._html()))

    def _html(self) -> str:
        now, over = self.snapshot(), self._over.is_set()
        times = {"time" if over else "time so far": format_seconds(time.monotonic() - self._began)}
        if now.seconds_left and now.done < now.rows and not over:
            times["estimated time left"] = format_seconds(now.seconds_left)
        if now.pace and not over:
            times["to finish in time"] = now.pace
        if over and self._dashboard:
            return progress_bar(now, "", times, notes={"dashboard while it ran": self._dashboard})
        return progress_bar(now, self._dashboard, times, link=self._dashboard.startswith("http"))
