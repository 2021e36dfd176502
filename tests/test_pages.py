"""The page /classify of the dashboard, and report.html, in a real browser."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import dask_classifier as dc

DATA = """names => {
    const found = {}
    for (const model of Bokeh.documents[0]._all_models.values())
        if (names.includes(model.name))
            found[model.name] = model.data ? Object.fromEntries(
                Object.entries(model.data).map(([name, column]) => [name, Array.from(column)])) : model.text
    return found
}"""


def shown(page):
    """What the page /classify has been told: its headline, and the columns of its plots and table."""
    parts = [f"classify_{name}" for name in ("head", "speed", "workers", "flight")]
    return {name.removeprefix("classify_"): value for name, value in page.evaluate(DATA, parts).items()}


def wait_for(condition, seconds=300):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.2)
    return found


def rows_done(page):
    """The first number of the headline."""
    return int(re.search(r">([\d,]+)</div><div[^>]*>rows done", shown(page)["head"])[1].replace(",", ""))


@pytest.fixture
def dashboard(visit):
    """Opens a page of Dask's dashboard, and waits until it is drawn."""

    def open_page(url):
        page = visit(url)
        wait_until_drawn(page)
        return page

    return open_page


def wait_until_drawn(page):
    page.wait_for_function("() => window.Bokeh && Bokeh.documents.length > 0")


@pytest.fixture
def run_of_seconds(tmp_path, classifiers):
    """The command at work, for longer than any test needs; gives the address that it says."""
    words = ["--rows", "4M", "--block-rows", "1000", "--classifier", classifiers("slow"), "--workers", "2"]
    process = subprocess.Popen(
        [Path(sys.executable).parent / "dask-classify", *words, "--dashboard-address", "127.0.0.1:0"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    address = next(found[1] for line in process.stderr if (found := re.search(r"dashboard: (http://\S+)", line)))
    reader = threading.Thread(target=process.stderr.read)
    reader.start()
    yield address
    process.terminate()
    process.wait(300)
    reader.join()


def test_the_page_fills_while_a_run_goes_on(run_of_seconds, dashboard):
    assert run_of_seconds.endswith("/classify")
    page = dashboard(run_of_seconds)
    wait_for(lambda: len(shown(page)["speed"]["speed"]) > 1 and shown(page)["flight"]["block"])
    first = rows_done(page)
    assert 0 < first < 4_000_000 and min(shown(page)["speed"]["speed"]) > 0
    wait_for(lambda: rows_done(page) > first)
    wait_for(lambda: sum(shown(page)["workers"]["rows"]) >= 1000)
    assert all(re.fullmatch(r"process \d+", name) for name in shown(page)["workers"]["name"])
    assert "classifying" in shown(page)["head"] and "of 4,000<" in shown(page)["head"]
    assert page.locator("canvas").count() >= 2 and page.get_by_text("Blocks in flight", exact=True).is_visible()


def test_the_menu_of_each_page_leads_to_it(run_of_seconds, dashboard):
    page = dashboard(run_of_seconds.replace("/classify", "/status"))
    page.get_by_role("link", name="Classify").click()
    page.wait_for_url("**/classify")
    wait_until_drawn(page)
    wait_for(lambda: rows_done(page) > 0)


def test_a_page_opened_late_shows_how_the_run_was(dashboard, tmp_path, classifiers):
    """And, before any run, that there is none."""
    with dc.LocalCluster(2, dashboard_address="127.0.0.1:0") as cluster:
        link = cluster.dashboard_link.replace("/status", "/classify")
        early = dashboard(link)
        wait_for(lambda: "No run" in shown(early)["head"])
        (tmp_path / "in.csv").write_text("id,text\n1,good\n2,BAD\n3,good\n")
        options = {"classifier": classifiers("fails_on_bad"), "max_bad": 1, "chunk_rows": 1, "block_rows": 1}
        dc.run(dc.plan(input=tmp_path / "in.csv", output=tmp_path / "<i>run", **options), cluster)
        late = dashboard(link)
        for page in (early, late):
            wait_for(lambda page=page: rows_done(page) == 3)
            head = shown(page)["head"]
            assert "<b>complete</b>" in head and "&lt;i&gt;run" in head and "<i>" not in head
            assert re.search(r">1</div><div[^>]*>bad rows", head) and "3 of 3" in head
            assert not shown(page)["flight"]["block"]
        with pytest.raises(dc.errors.TooManyBadRows):
            dc.run(dc.plan(input=tmp_path / "in.csv", output=tmp_path / "two", **options | {"max_bad": 0}), cluster)
        wait_for(lambda: "failed: Stopped at a bad row" in shown(early)["head"])
        early.close()  # before the server goes, which would be an error of theirs
        late.close()


def test_the_report_in_light_and_dark_and_on_paper(cluster, visit, tmp_path):
    dc.run(dc.plan(rows=1000, output=tmp_path / "run", slowness=1, block_rows=100), cluster)
    address = f"file://{tmp_path}/run/report.html"
    paper = "() => getComputedStyle(document.body).backgroundColor"
    light, dark = visit(address, color_scheme="light"), visit(address, color_scheme="dark")
    assert light.evaluate(paper) == "rgb(255, 255, 255)" != dark.evaluate(paper)
    dark.emulate_media(media="print")
    assert dark.evaluate(paper) == "rgb(255, 255, 255)"
    for section in ("totals", "timeline", "speed", "workers", "blocks", "bad-rows", "settings"):
        assert light.locator(f"#{section}").is_visible(), section
    assert light.locator("#blocks circle").count() == 10 and light.locator(".answers rect").count() == 40
    narrow = visit(address, viewport={"width": 400, "height": 800})
    assert narrow.evaluate("() => document.documentElement.scrollWidth") <= 400, "no line runs off a telephone's screen"
    assert light.pdf()[:4] == b"%PDF"
