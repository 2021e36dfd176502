"""Runs as a scheduler knows them, and its page, without a browser."""

import pytest
from distributed import Client, Scheduler, Worker
from distributed.utils_test import gen_test

from dask_classifier import followed, page
from dask_classifier.followed import PAGE_TOPIC, FollowedRun, topic
from dask_classifier.progress import Beginning, Finished
from dask_classifier.schedulers import RunsPlugin, page_path


def done(index, rows=100):
    return list(Finished(index, rows, 0, "w", "h", 1))


def begun(run, title="a run", client="c"):
    return {"run": run, "title": title, "client": client, "beginning": list(Beginning(1000, 10, (), 0, 0))}


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""
    now = [1000.0]
    monkeypatch.setattr(followed.time, "time", lambda: now[0])
    return now


def test_the_curve_of_a_steady_run_is_flat_also_where_blocks_end_and_after_hours(clock):
    run = FollowedRun("one", began=1000.0)
    run.hear({"beginning": list(Beginning(10**9, 10**6, (), 0, 0))})
    for second in range(1, 12_000):
        clock[0] = 1000.0 + second
        ended, rest = divmod(second, 10)  # a block of 1,000 rows takes ten seconds
        finished = [done(ended, 1000)] if rest == 0 else []
        run.hear({"finished": finished, "name": "w", "tasks": [(ended + 1, 100 * rest, 0)] if rest else []})
    speeds = page.curve(run)["speed"]
    assert len(run.history) <= 1200 and len(speeds) > 500, "after three hours points are far apart"
    assert min(speeds) == max(speeds) == 100


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


def test_a_client_that_was_killed_ends_its_runs():
    plugin = RunsPlugin()
    plugin.log_event(PAGE_TOPIC, begun("mine", client="me"))
    plugin.log_event(PAGE_TOPIC, begun("other", client="you"))
    plugin.remove_client(None, "me")
    assert plugin.runs["mine"].snapshot().stage == "its client is gone" and plugin.runs["mine"].ended
    assert not plugin.runs["other"].ended and plugin.newest.id == "other"


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
