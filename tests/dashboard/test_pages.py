"""The page /classify of the dashboard, and report.html, in a real browser."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import dask_classifier as dc
from dask_classifier.runs.manifest import Manifest
from dask_classifier.show import report
from dask_classifier.show.figures import figures

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
    parts = [f"classify_{name}" for name in ("head", "speed", "workers", "flights")]
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


def settled(page):
    """What a page shows, or None between the messages of an update, which arrive one after the other."""
    first = shown(page)
    page.wait_for_timeout(200)
    return first if shown(page) == first else None


def rows_in_flight(page):
    """The cells of the table, row by row."""
    table = shown(page).get("flights", "")
    return [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in re.findall("<tr><th scope=.row.*?</tr>", table)]


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
def long_run(tmp_path, classifiers):
    """The command at work on two processes, for longer than a test takes; gives the address that it says."""
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


def test_the_page_fills_while_a_run_goes_on(long_run, dashboard):
    assert long_run.endswith("/classify")
    page = dashboard(long_run)
    wait_for(lambda: len(shown(page)["speed"]["speed"]) > 1 and rows_in_flight(page))
    first = rows_done(page)
    assert 0 < first < 4_000_000 and min(shown(page)["speed"]["speed"]) > 0
    wait_for(lambda: rows_done(page) > first)
    wait_for(lambda: sum(shown(page)["workers"]["rows"]) >= 1000)
    assert all(re.fullmatch(r"process \d+", name) for name in shown(page)["workers"]["name"])
    assert re.search(r"<b>classifying</b> \d+\.\d%: ", shown(page)["head"]) and "of 4,000<" in shown(page)["head"]
    assert re.search(r"classifier:</span> .*classifiers.py:slow<", shown(page)["head"])
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("canvas").count() >= 2 and page.get_by_text("Blocks in flight", exact=True).is_visible()


def test_the_page_shows_one_moment_and_what_each_process_does(long_run, dashboard):
    page = dashboard(long_run)
    wait_for(lambda: rows_in_flight(page))
    for _ in range(10):
        now = wait_for(lambda: settled(page))
        done = int(re.search(r">([\d,]+)</div><div[^>]*>rows done", now["head"])[1].replace(",", ""))
        assert sum(now["workers"]["rows"]) == done, "bars, those of blocks in flight among them, add up to the headline"
    cells = wait_for(lambda: [row for row in rows_in_flight(page) if float(row[4].rstrip("s")) > 0 and row[6] != "0 B"])
    name, block, rows, bad, _, cpu, memory = cells[0]
    assert psutil.Process(int(name.removeprefix("process "))).is_running() and 0 <= int(block) < 400
    assert 0 <= int(rows.replace(",", "")) <= 1000 and bad == "0" and cpu.endswith("%") and memory.endswith("iB")


def test_the_page_can_be_read_on_a_phone_and_in_the_dark(long_run, visit):
    page = visit(long_run, viewport={"width": 390, "height": 800}, color_scheme="dark")
    wait_until_drawn(page)
    wait_for(lambda: rows_in_flight(page))
    assert page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor") == "rgb(20, 25, 28)"
    charts = wait_for(lambda: len(boxes := page.evaluate(CHARTS)) == 2 and boxes)
    assert all(left >= 0 and right <= 390 and right - left > 300 for left, right, _ in charts), charts
    assert charts[0][2] != charts[1][2], "below each other"
    assert page.evaluate("() => document.scrollingElement.scrollWidth") <= 390
    colors = page.evaluate(
        "() => Bokeh.documents[0].roots().flatMap(root => [...root.references()])"
        ".filter(model => model.type === 'Title').map(model => model.text_color)"
    )
    assert colors == ["#c5ced3", "#c5ced3"]


CHARTS = """() => Object.values(Bokeh.index).flatMap(function charts(view) {
    return view.model.type === 'Figure' ? [view] : [...(view.child_views ?? [])].flatMap(charts)
}).map(view => view.el.getBoundingClientRect()).map(box => [box.left, box.right, box.top])"""


def test_the_menu_of_each_page_leads_to_it(long_run, dashboard):
    page = dashboard(long_run.replace("/classify", "/status"))
    page.get_by_role("link", name="Classify").click()
    page.wait_for_url("**/classify")
    wait_until_drawn(page)
    wait_for(lambda: rows_done(page) > 0)


def test_a_page_opened_late_shows_how_the_run_was(dashboard, tmp_path, classifiers):
    """And, before any run, that there is none."""
    with dc.LocalCluster(2, dashboard_address="127.0.0.1:0") as cluster:
        link = cluster.dashboard_link.replace("/status", "/classify")
        early = dashboard(link)
        wait_for(lambda: "No dask-classify run" in shown(early)["head"])
        (tmp_path / "in.csv").write_text("id,text\n1,good\n2,BAD\n3,good\n")
        options = {"classifier": classifiers("fails_on_bad"), "max_bad": 1, "chunk_rows": 1, "block_rows": 1}
        dc.run(dc.plan(input=tmp_path / "in.csv", output=tmp_path / "<i>run", **options), cluster)
        late = dashboard(link)
        for page in (early, late):
            wait_for(lambda page=page: rows_done(page) == 3)
            head = shown(page)["head"]
            assert "<b>complete</b>" in head and "&lt;i&gt;run" in head and "<i>" not in head
            assert re.search(r">1</div><div[^>]*>bad rows", head) and "3 of 3" in head
            assert not rows_in_flight(page)
            assert re.search(r"first bad row of a block:</span> ValueError in 1 block<", head)
            assert "BAD" not in head, "no text of the source, nor of the exception"
            assert "&lt;i&gt;run/report.html</div>" in head
        with pytest.raises(dc.errors.TooManyBadRows):
            dc.run(dc.plan(input=tmp_path / "in.csv", output=tmp_path / "two", **options | {"max_bad": 0}), cluster)
        head = wait_for(lambda: (head := shown(early)["head"]) and "failed" in head and head)
        assert "<b>failed: TooManyBadRows</b>" in head and "BAD" not in head, "its message quotes the row"
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
    assert light.locator("#blocks svg:visible circle").count() == 10
    assert light.locator(".answers svg:visible rect").count() == 40
    assert light.pdf()[:4] == b"%PDF"


UNREADABLE = """() => {
    const wrong = [], visible = element => element.getClientRects().length > 0
    for (const element of document.body.querySelectorAll('*')) {
        const box = element.getBoundingClientRect()
        if (visible(element) && (box.right > innerWidth + 0.5 || box.left < -0.5))
            wrong.push(`${element.tagName} from ${box.left} to ${box.right}`)
    }
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    for (let node; node = texts.nextNode();)
        for (const word of node.data.matchAll(/[^\\s\\-\u200b]{2,16}(?![^\\s\\-])/g)) {
            if (word.index && !/[\\s\\-]/.test(node.data[word.index - 1])) continue  // the end of a longer one
            const range = document.createRange()
            range.setStart(node, word.index)
            range.setEnd(node, word.index + word[0].length)
            if (new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1)
                wrong.push(`${word[0]} is broken`)
        }
    for (const label of document.querySelectorAll('svg text'))
        if (visible(label)) {
            const size = parseFloat(getComputedStyle(label).fontSize) * label.getScreenCTM().a
            if (size < 9) wrong.push(`${label.textContent} is ${size} px`)
        }
    for (const chart of document.querySelectorAll('svg')) {
        const ticks = [...chart.querySelectorAll('text')].filter(visible).map(text => text.getBoundingClientRect())
        for (const a of ticks)
            for (const b of ticks)
                if (a !== b && a.left < b.right && b.left < a.right && a.top < b.bottom - 2 && b.top < a.bottom - 2)
                    wrong.push(`ticks on top of each other at ${a.left}`)
    }
    return wrong
}"""


@pytest.fixture(scope="module")
def wide_report(cluster, tmp_path_factory):
    """A report of what is hard to fit: a reason of 900 characters without a blank, workers with long names, seven-digit
    numbers, a column with a long name."""
    folder = tmp_path_factory.mktemp("wide")
    lines = ["id,text", *(f"{number},{'BAD' if number < 4 else 'fine'}{number}" for number in range(3000))]
    (folder / "in.csv").write_text("\n".join(lines))
    (folder / "mine.py").write_text(
        "def f(df):\n"
        "    if df['text'].str.contains('BAD').any():\n"
        "        raise ValueError('x' * 900)\n"
        "    return df.assign(**{'SCORE_' * 20: [float(i) for i in df.index], 'KIND': 'y' * 300})\n"
    )
    options = {"classifier": f"{folder}/mine.py:f", "max_bad": 4, "block_rows": 100}
    result = dc.run(dc.plan(input=folder / "in.csv", output=folder / "run", **options), cluster)
    return folder, result, report.html(figures(result))


@pytest.mark.parametrize("width", [390, 320, 1280])
def test_the_report_fits_its_screen_and_can_be_read(wide_report, visit, width):
    folder, result, html = wide_report
    assert "x" * 900 in html
    far = [part | {"worker": f"tcp://10.0.12.{n}:40001", "host": "ip-10-0-12-7.eu-central-1.compute.internal"}
           for n, part in enumerate(result.manifest["parts"])]  # fmt: skip
    far = report.html(figures(dc.Result(result.output, Manifest(result.manifest | {"parts": far}))))
    for name, text in {"processes": html, "workers": far}.items():
        (folder / f"{name}.html").write_text(text)
        page = visit(f"file://{folder}/{name}.html", viewport={"width": width, "height": 800})
        assert page.locator("svg:visible text").count() > 8
        assert page.evaluate(UNREADABLE) == []


def test_the_report_leads_to_the_files_of_the_run(wide_report, visit):
    _, result, _ = wide_report
    page = visit(f"file://{result.output}/report.html")
    assert page.locator("#files a").all_inner_texts() == ["parts/", "quarantine/", "manifest.json"]
    page.get_by_role("link", name="manifest.json").click()
    page.wait_for_url("**/run/manifest.json")
    page.go_back()
    page.get_by_role("link", name="quarantine/").click()
    assert "part-00000.csv.gz" in page.content()
