"""A run's events as JSON Lines, for programs: `--log-json FILE`."""

import contextlib
import datetime
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from .. import __version__
from ..errors import DaskClassifyError, Interrupted, StorageError
from ..parts.receipts import Receipt
from ..parts.run_folder import quarantine_name
from ..runs.account import INSTANCES
from ..runs.planning import Plan
from ..runs.result import Result
from .terminal import Display


@contextlib.contextmanager
def event_log(file: str | None, run: str | None) -> "Iterator[EventLog | None]":
    """Open a log for the `with` block, which ends with the event `end` if it raises. Without a file, there is no log.

    Raise StorageError if the file cannot be written.
    """
    if file is None:
        yield None
        return
    try:
        stream = Path(file).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115
    except OSError as error:
        raise StorageError(
            f"Cannot write {file}: {error.strerror}.", "Check the path given with --log-json."
        ) from error
    with stream:
        log = EventLog(stream, run or "")
        try:
            with _logging_instances(log):
                yield log
        except KeyboardInterrupt:
            log.write("end", outcome="interrupted", exit_code=Interrupted.exit_code)
            raise
        except DaskClassifyError as error:
            outcome = "interrupted" if isinstance(error, Interrupted) else "failed"
            what = {"error": type(error).__name__, "message": error.message}
            log.write("end", outcome=outcome, exit_code=error.exit_code, **what)
            raise
        except Exception as error:
            log.write("end", outcome="failed", exit_code=1, error=type(error).__name__, message=str(error))
            raise


@contextlib.contextmanager
def _logging_instances(log: "EventLog") -> Iterator[None]:
    """Write an event for each instance that is launched or has ended within the `with` block."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                log.write("instance", **record.instance)
            except Exception:  # no reason for a launch to fail
                self.handleError(record)

    logger, handler = logging.getLogger(INSTANCES), Handler()
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False  # other handlers have not asked for these records
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


class EventLog:
    """Appends events to a file, each as a line that is written at once."""

    def __init__(self, stream: TextIO, run: str):
        self._stream, self.run = stream, run

    def write(self, event: str, **fields: Any) -> None:
        """Append an event. A full disk does not end the run."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with contextlib.suppress(OSError):
            self._stream.write(json.dumps({"at": now, "event": event, "run": self.run} | fields) + "\n")

    def started(self, plan: Plan) -> None:
        """Write the event `start`. From now on, all events have the run's folder."""
        self.run = plan.output
        self.write("start", version=__version__, source=str(plan.source), classifier=plan.package.reference)

    def ended(self, result: Result, exit_code: int) -> None:
        """Write the event `end` of a run that is complete, or partial."""
        manifest = result.manifest
        numbers = {name: manifest[name] for name in ("rows_in", "rows_out", "bad_rows", "bytes", "seconds")}
        outcome = "partial" if result.partial else "complete"
        more = {name: manifest[name] for name in ("rows_missing", "machines") if manifest.get(name)}
        self.write("end", outcome=outcome, exit_code=exit_code, **numbers, parts=len(manifest["parts"]), **more)


class LoggingDisplay(Display):
    """A display that writes a run's events to a log, too."""

    def __init__(self, log: EventLog, *, quiet: bool = False):
        super().__init__(quiet=quiet)
        self.log = log

    def say(self, text: str, style: str = "") -> None:
        """Log a message."""
        self.log.write("message", text=text)
        super().say(text, style)

    def stage(self, name: str) -> None:
        """Log the beginning of a stage."""
        self.log.write("stage", stage=name)
        super().stage(name)

    def connected(self, dashboard: str | None, processes: int) -> None:
        """Log the cluster's size."""
        self.log.write("connected", dashboard=dashboard, processes=processes)
        super().connected(dashboard, processes)

    def begin(self, rows: int, blocks: int, receipts: tuple[Receipt, ...]) -> None:
        """Log what an earlier attempt has done."""
        super().begin(rows, blocks, receipts)
        now = self.snapshot()
        self.log.write(
            "begin", rows=rows, blocks=blocks, estimate=now.is_estimate, rows_done=now.done, blocks_done=len(receipts)
        )

    def resize(self, rows: int, blocks: int, is_estimate: bool) -> None:
        """Log the run's size."""
        self.log.write("size", rows=rows, blocks=blocks, estimate=is_estimate)
        super().resize(rows, blocks, is_estimate)

    def finished(self, receipt: Receipt) -> None:
        """Log a finished block."""
        super().finished(receipt)
        now = self.snapshot()
        numbers = {name: getattr(receipt, name) for name in ("rows", "bad_rows", "bytes", "seconds", "worker", "host")}
        self.log.write("block", block=receipt.index, **numbers, rows_done=now.done, blocks_done=now.blocks_done)
        if receipt.bad_rows:
            bad = {"bad_rows": receipt.bad_rows, "kind": receipt.first_kind, "file": quarantine_name(receipt.index)}
            self.log.write("bad_rows", block=receipt.index, **bad)

    def died(self, index: int, manner: str, again: bool) -> None:
        """Log the end of a process in the middle of a block."""
        self.log.write("process_died", block=index, manner=manner, again=again)
        super().died(index, manner, again)

    def leaving(self, worker: str, why: str) -> None:
        """Log a worker that leaves the cluster."""
        self.log.write("worker_leaving", worker=worker, why=why)
        super().leaving(worker, why)
