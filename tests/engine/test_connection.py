"""A connection to the scheduler that is lost, and comes back or not."""

import contextlib
import gzip
import itertools
import socket
import struct
import threading
import time

import pytest
from distributed import Client, LocalCluster
from generated_csv import csv_of
from reference import reference

import dask_classifier as dc
from dask_classifier.engine import connection as connection_module
from dask_classifier.engine.connection import Connection, OnceClient
from dask_classifier.engine.flight import Flight
from dask_classifier.engine.instances import OtherCluster
from dask_classifier.errors import ClusterError, LimitReached
from dask_classifier.runs import limits
from dask_classifier.runs.limits import Limits
from dask_classifier.runs.progress import Progress

SLOW = """
import time

def classify(chunk):
    time.sleep(0.05)
    return chunk["FLUX"].str.len().rename("CLASSIFICATION")
"""


class Link:
    """A way to a scheduler that can be cut: what listens on `address` passes everything on, while it is up."""

    def __init__(self, target):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.up, self.cuts, self._sockets = True, 0, []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near = self.listener.accept()[0]
                if not self.up:
                    _reset(near)
                    continue
                far = socket.create_connection(self.target)
                self._sockets += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()

    def cut(self, up=True):
        """Reset all connections; then let new ones through, or none."""
        self.up = up
        cut, self._sockets = self._sockets, []
        self.cuts += len(cut)
        for each in cut:
            _reset(each)

    def close(self):
        self.cut(up=False)
        self.listener.close()


def _pass_on(one, other):
    with contextlib.suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
    _reset(other)


def _reset(one):
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RDWR)
        one.close()


@pytest.fixture(scope="module")
def dask_cluster():
    with LocalCluster(2, threads_per_worker=1, protocol="tcp://", dashboard_address="127.0.0.1:0") as dask_cluster:
        yield dask_cluster


@pytest.fixture
def link(dask_cluster):
    host, port = dask_cluster.scheduler_address.removeprefix("tcp://").split(":")
    link = Link((host, int(port)))
    yield link
    link.close()


class Cutting(Progress):
    """Cuts the link once after each of the given numbers of blocks."""

    def __init__(self, link, *after, outage=0.0):
        super().__init__()
        self.link, self.after, self.outage, self.notes, self.blocks = link, list(after), outage, [], 0

    def finished(self, receipt):
        super().finished(receipt)
        self.blocks += 1
        if self.after and self.blocks >= self.after[0]:
            self.after.pop(0)
            self.link.cut(up=not self.outage)
            if self.outage:
                timer = threading.Timer(self.outage, setattr, (self.link, "up", True))
                timer.daemon = True  # an outage may be longer than the tests
                timer.start()

    def note(self, text):
        self.notes.append(text)


def plan(tmp_path, rows=4000, **options):
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "rows.csv").write_bytes(csv_of(rows))
    classifier = f"{tmp_path / 'slow.py'}:classify"
    return dc.plan(tmp_path / "rows.csv", classifier, tmp_path / "run", block_rows=100, **options)


def expected(rows=4000):
    return reference(csv_of(rows), lambda df: df.assign(CLASSIFICATION=df["FLUX"].str.len()))


@pytest.mark.parametrize("outage", [0.0, 3.0])
def test_a_run_goes_on_after_its_connection_was_lost(link, tmp_path, run_bytes, outage):
    """Three times, at once and after a while without any: nothing is lost or doubled."""
    progress = Cutting(link, 3, 9, 20, outage=outage)
    result = dc.run(plan(tmp_path), link.address, progress=progress)
    assert link.cuts >= 6 and not progress.after
    told = 3 * ["lost the connection to the scheduler", "connected to the scheduler again; bl"]
    assert [note[:36] for note in progress.notes] == told
    assert run_bytes(result.output) == expected()


def test_a_file_that_flows_goes_on_too(link, tmp_path, run_bytes):
    """The worker that reads it has lost it, like its classifier processes."""
    text = csv_of(60_000)  # more than 4 MiB
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(text, 1))
    (tmp_path / "length.py").write_text(SLOW.replace("0.05", "0.002"))
    progress = Cutting(link, 3, 100)
    options = {"block_rows": 250, "output": tmp_path / "run"}
    result = dc.run(
        dc.plan(tmp_path / "rows.csv.gz", f"{tmp_path / 'length.py'}:classify", **options),
        link.address,
        progress=progress,
    )
    assert link.cuts >= 4 and not progress.after
    assert run_bytes(result.output) == expected(60_000)


def test_the_dashboard_shows_the_run_as_running_again(link, dask_cluster, tmp_path, monkeypatch):
    """Its page has taken the client for dead."""
    dc.run(dc.plan(rows=10, output=tmp_path / "first"), link.address)  # makes the page
    states, gone, plugin = [], [], dask_cluster.scheduler.plugins["dask-classify"]
    remove = plugin.remove_client
    monkeypatch.setattr(plugin, "remove_client", lambda *args, **options: gone.append(1) or remove(*args, **options))

    class Looking(Cutting):
        def finished(self, receipt):
            super().finished(receipt)
            (run,) = [run for run in _runs(dask_cluster) if run.title == str(tmp_path / "run")]
            states.append((run.ended is not None, run.progress.snapshot().stage))

    dc.run(plan(tmp_path), link.address, progress=Looking(link, 10))
    assert link.cuts and gone and states[-1] == (False, "classifying"), states[-1]
    (run,) = [run for run in _runs(dask_cluster) if run.title == str(tmp_path / "run")]
    assert run.complete


def _runs(dask_cluster):
    return dask_cluster.scheduler.plugins["dask-classify"].runs.values()


@pytest.mark.long
def test_a_connection_that_does_not_come_back_ends_the_run(link, tmp_path, run_bytes):
    """After ten seconds; and the run can be resumed."""
    with pytest.raises(ClusterError, match=r"^Lost the connection to the cluster: no new one within 10\.0s") as caught:
        dc.run(planned := plan(tmp_path), link.address, progress=Cutting(link, 5, outage=1e4))
    assert "resume" in str(caught.value) and link.cuts
    link.up = True
    result = dc.run(planned, link.address, resume=True)
    assert len(result.manifest["resumed"]) >= 5 and run_bytes(result.output) == expected()


def test_an_instance_that_has_terminated_is_not_waited_for(link):
    with OnceClient(link.address, set_as_default=False) as client:
        gone = type("Gone", (OtherCluster,), {"is_gone": lambda self: True})()
        connection = Connection(client, gone, Progress())
        link.cut(up=False)
        until = time.monotonic() + 60
        while connection.is_joined() and time.monotonic() < until:
            time.sleep(0.05)
        with pytest.raises(ClusterError, match="its scheduler's instance has terminated"):
            connection.ensure()


def test_a_computer_with_another_address_is_let_in(link):
    """The scheduler does not answer until its cluster has been asked to; it is asked, but not at every attempt."""
    asked = []

    class Guarded(OtherCluster):
        def let_in(self):
            asked.append(time.monotonic())
            if len(asked) == 2:
                link.up = True

    with OnceClient(link.address, set_as_default=False) as client:
        connection = Connection(client, Guarded(), Progress())
        connection_module._ASK_AGAIN_SECONDS, before = 3.0, connection_module._ASK_AGAIN_SECONDS
        try:
            link.cut(up=False)
            assert connection.is_lost_soon() and connection.ensure() and connection.is_joined()
        finally:
            connection_module._ASK_AGAIN_SECONDS = before
        connection.close()
    assert len(asked) == 2 and asked[1] - asked[0] >= 3


def test_a_loss_that_another_call_notices_first(link, tmp_path, run_bytes):
    """What was under way starts again, also if a refill or a nested call has made the new connection."""
    with OnceClient(link.address, set_as_default=False) as client:
        connection = Connection(client, OtherCluster(), Progress())
        members = {"plugin": "none", "_tries": itertools.count(), "processes": 1, "instances": OtherCluster()}
        executor = type("Stub", (), members)()
        executor.connection, executor.progress = connection, Progress()
        executor.__class__.client = property(lambda self: self.connection.client)
        flight = Flight(executor, "unused:unused", None)
        flight.submit([(0, ()), (1, ())])
        link.cut()
        wait_until(lambda: not connection.is_joined())
        connection.ensure()
        assert connection.client is not client
        lost = list(flight.landed())
        connection.close()
    # no worker has this run's processes: it is asked three times, as one that has not heard yet that the run goes on
    assert sorted(outcome.number for outcome in lost if outcome) == [0, 1] and lost.count(None) == 4


def wait_until(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_loss_while_the_client_is_busy(link, tmp_path, run_bytes):
    """The size of the cluster is asked for when the connection is already closed."""

    class Busy(Cutting):
        def finished(self, receipt):
            super().finished(receipt)
            if self.blocks == 5:
                self.link.cut()
                time.sleep(5.5)  # longer than the size is remembered

    result = dc.run(plan(tmp_path), link.address, progress=Busy(link))
    assert link.cuts and run_bytes(result.output) == expected()


def test_a_loss_before_the_first_worker(tmp_path, run_bytes):
    with LocalCluster(0, protocol="tcp://", dashboard_address="127.0.0.1:0") as empty:
        host, port = empty.scheduler_address.removeprefix("tcp://").split(":")
        link = Link((host, int(port)))

        def cut_then_grow():
            wait_until(lambda: link._sockets)
            time.sleep(1)  # the client waits for its first worker
            link.cut()
            time.sleep(1)
            empty.scale(1)

        threading.Thread(target=cut_then_grow).start()
        result = dc.run(plan(tmp_path, 1000), link.address)
        assert link.cuts
        link.close()
    assert run_bytes(result.output) == expected(1000)


def test_a_client_that_was_closed_is_not_connected_again(dask_cluster, link, tmp_path):
    """Neither before the run nor in it."""
    client = Client(dask_cluster, set_as_default=False)

    class Closing(Cutting):
        def finished(self, receipt):
            super().finished(receipt)
            if self.blocks == 3:
                client.close()

    with pytest.raises(ClusterError, match="its client was closed"):
        dc.run(planned := plan(tmp_path), client, progress=Closing(link))
    with pytest.raises(ClusterError, match="its client was closed"):
        dc.run(planned, client, resume=True)


def test_the_time_is_looked_at_while_there_is_no_connection(link, tmp_path, monkeypatch):
    """It would be tried for longer than a test may take."""
    monkeypatch.setattr(OtherCluster, "reconnect_seconds", 1e4)
    clock = Clock()
    monkeypatch.setattr(limits, "time", clock)
    progress = Cutting(link, 3, outage=1e4)
    progress.note = lambda text: setattr(clock, "late", 3600.0)  # the time is over once the loss is noticed
    with pytest.raises(LimitReached):
        dc.run(plan(tmp_path), link.address, progress=progress, limits=Limits(max_time=1800))
    assert link.cuts and clock.late, "the limit came before the outage"


class Clock:
    """Stands in for the module `time` in limits.py."""

    late = 0.0

    def time(self):
        return time.time() + self.late


def test_a_loss_leaves_no_thread(link, tmp_path):
    before = set(threading.enumerate())
    dc.run(plan(tmp_path, 1000), link.address, progress=Cutting(link, 3))
    assert link.cuts
    wait_until(lambda: not [each for each in set(threading.enumerate()) - before if "IO loop" in each.name])


def test_a_result_that_cannot_be_fetched_on_a_good_connection(link, tmp_path, run_bytes, monkeypatch):
    """Its block starts again, though nothing else is lost."""
    gather, failures = Client._gather, []

    async def fails_once(self, *args, **options):
        if not failures and self.status == "running" and isinstance(self, OnceClient):
            failures.append(1)
            raise OSError("the result did not come")
        return await gather(self, *args, **options)

    monkeypatch.setattr(Client, "_gather", fails_once)
    result = dc.run(plan(tmp_path, 1000), link.address)
    assert failures and not link.cuts and run_bytes(result.output) == expected(1000)
