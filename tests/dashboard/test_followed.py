"""Runs as a scheduler knows them, and its page, without a browser."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import distributed
import psutil
import pytest
from distributed import Client, Scheduler, Worker
from distributed.utils_test import gen_test
from tornado.ioloop import IOLoop

from dask_classifier.dashboard import events, page
from dask_classifier.dashboard.events import PAGE_TOPIC, FollowedRun, topic
from dask_classifier.dashboard.scheduler_plugin import RunsPlugin, page_path
from dask_classifier.runs.progress import Beginning, Finished


def wait_until(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.1)


def done(index, rows=100):
    return list(Finished(index, rows, 0, "w", "h", 1))


def begun(run, title="a run", client="c"):
    return {"run": run, "title": title, "client": client, "beginning": list(Beginning(1000, 10, (), 0, 0))}


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""
    now = [1000.0]
    monkeypatch.setattr(events.time, "time", lambda: now[0])
    return now


def test_the_curve_of_a_steady_run_is_flat_also_where_blocks_end_and_after_hours(clock):
    run = FollowedRun("one", began=1000.0)
    run.handle({"beginning": list(Beginning(10**9, 10**6, (), 0, 0))})
    for second in range(1, 12_000):
        clock[0] = 1000.0 + second
        ended, rest = divmod(second, 10)  # a block of 1,000 rows takes ten seconds
        finished = [done(ended, 1000)] if rest == 0 else []
        run.handle({"finished": finished, "name": "w", "tasks": [(ended + 1, 100 * rest, 0)] if rest else []})
    speeds = page.curve(run)["speed"]
    assert len(run.history) <= 1200 and len(speeds) > 500, "after three hours points are far apart"
    assert min(speeds) == max(speeds) == 100


@pytest.mark.parametrize(("minutes", "verdict"), [(60, "in time"), (-60, "late")])
def test_the_page_shows_whether_a_run_finishes_in_time(minutes, verdict):
    run = FollowedRun("one", began=time.time())
    beginning = list(Beginning(1000, 10, (), 0, 0))
    run.handle({"beginning": beginning, "finish_by": time.time() + 60 * minutes})
    time.sleep(0.01)
    run.handle({"finished": [done(1)], "name": "w", "tasks": []})
    assert page._times(run, run.snapshot())["to finish in time"].endswith(verdict)


def test_runs_at_work_are_not_forgotten_and_a_late_word_brings_none_back():
    plugin = RunsPlugin()
    for number in range(20):
        plugin.log_event(PAGE_TOPIC, begun(str(number)))
    assert len(plugin.runs) == 20 and plugin.newest.id == "19"
    for number in range(1, 20):
        plugin.log_event(PAGE_TOPIC, {"run": str(number), "end": "complete"})
    plugin.log_event(PAGE_TOPIC, begun("20"))
    assert "1" not in plugin.runs and "0" in plugin.runs and len(plugin.runs) == 10
    plugin.log_event(topic("1"), {"name": "w", "tasks": [(3, 5, 0)]})
    plugin.log_event("another/topic", "anything")
    assert "1" not in plugin.runs and plugin.newest.id == "20"


def test_a_client_that_was_killed_ends_its_runs_and_no_others():
    plugin, scheduler = RunsPlugin(), Scheduler.__new__(Scheduler)
    scheduler.loop = IOLoop(make_current=False)
    plugin.log_event(PAGE_TOPIC, begun("mine", client="me"))
    plugin.log_event(PAGE_TOPIC, begun("other", client="you"))
    plugin.remove_client(scheduler, "me")
    scheduler.loop.close()
    assert plugin.runs["mine"].snapshot().stage == "client disconnected" and plugin.runs["mine"].ended
    assert not plugin.runs["other"].ended and plugin.newest.id == "other"


def left_by_runs(dask_worker):
    """What a worker has of runs: their plugins, folders and processes."""
    plugins = [plugin for name, plugin in dask_worker.plugins.items() if name.startswith("dask-classify-")]
    return {
        "plugins": len(plugins),
        "folders": len(list(Path(dask_worker.local_directory).glob("classifier-*"))),
        "processes": [pid for plugin in plugins for pid in plugin.pool.pids()],
    }


@pytest.mark.long
def test_a_killed_client_leaves_nothing_on_the_workers(tmp_path, classifiers):
    """Not its worker plugin, nor folder, timer and processes; and no worker that joins later gets them."""
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, host="127.0.0.1", processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        address = cluster.scheduler_address

        def registered():
            return [name for name in cluster.scheduler.worker_plugins if name.startswith("dask-classify-")]

        def there():
            (left,) = client.run(left_by_runs).values()
            return left

        words = ["--rows", "1M", "--block-rows", "100", "--classifier", classifiers("slow"), "--cluster", address]
        command = [Path(sys.executable).parent / "dask-classify", *words, "--output", tmp_path / "run", "--quiet"]
        with subprocess.Popen(command, cwd=tmp_path) as process:
            try:
                wait_until(lambda: list(tmp_path.glob("run/parts/*.json")))
                before = there()
                assert process.poll() is None
                assert len(registered()) == before["plugins"] == before["folders"] == 1
                assert all(map(psutil.pid_exists, before["processes"])) and before["processes"]
            finally:
                process.kill()
        assert process.returncode == -signal.SIGKILL
        wait_until(lambda: there() == {"plugins": 0, "folders": 0, "processes": []})
        assert not registered()
        wait_until(lambda: not any(map(psutil.pid_exists, before["processes"])))
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        assert {left["plugins"] for left in client.run(left_by_runs).values()} == {0}


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"dashboard": False}, None),
        ({"dashboard": True}, "/classify"),
        ({"dashboard": True, "http_prefix": "/under"}, "/under/classify"),
    ],
)
def test_the_page_is_where_the_dashboard_is(options, path):
    @gen_test()
    async def look():
        async with Scheduler(host="127.0.0.1", port=0, dashboard_address="127.0.0.1:0", **options) as scheduler:
            async with Worker(scheduler.address, nthreads=1, dashboard_address="127.0.0.1:0"):
                async with Client(scheduler.address, asynchronous=True) as client:
                    await client.register_plugin(RunsPlugin())
                    assert await client.run_on_scheduler(page_path) == path

    look()
