"""The page /classify of Dask's dashboard: how far the newest run is, how fast, where, and until when."""

import time

from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, DataTable, Div, NumberFormatter, NumeralTickFormatter, TableColumn
from bokeh.plotting import figure
from bokeh.server.tornado import BokehTornado
from distributed.dashboard import scheduler as dask_pages
from distributed.dashboard.components import DashboardComponent, add_periodic_callback
from distributed.dashboard.components.scheduler import BOKEH_THEME, env
from distributed.dashboard.core import BokehApplication
from distributed.dashboard.utils import update
from tornado.ioloop import IOLoop

from .followed import FollowedRun, newest_run
from .progress import Snapshot
from .units import format_seconds

PAGE = "classify"
_UPDATE_MS = 500
_SMOOTH_SECONDS = 10.0  # of the curve of rows/s: blocks report chunk by chunk
_MOST_WORKERS = 40  # bars
_DONE = "#2b7a78"
_WIDE = ".bk-clearfix { width: 100%; }"  # Bokeh's own is as wide as the text


def connect(application, http_server, scheduler, prefix: str = "") -> None:
    """Make Dask's pages, and ours."""
    dask_pages.connect(application, http_server, scheduler, prefix=prefix)
    add(scheduler)


def add(scheduler) -> str | None:
    """Add the page to the dashboard of a scheduler, and a link to the menu of all its pages. Returns the page's path;
    None where there is no dashboard.
    """
    there = [each for each in scheduler.http_application.applications if isinstance(each, BokehTornado)]
    if not there:
        return None
    prefix = there[0].prefix.rstrip("/")
    variables = dask_pages.template_variables(scheduler)  # the same object for all pages
    if PAGE in variables["pages"]:
        return f"{prefix}/{PAGE}"
    variables["pages"].insert(0, PAGE)
    application = BokehApplication({f"/{PAGE}": document}, scheduler, prefix=prefix, template_variables=variables)
    scheduler.http_application.add_application(application)
    application.initialize(IOLoop.current())
    application.start()
    return f"{prefix}/{PAGE}"


def document(scheduler, extra, doc) -> None:
    """What a browser that opens the page gets."""
    page = Page(scheduler)
    page.update()
    add_periodic_callback(doc, page, _UPDATE_MS)
    doc.title = "dask-classify"
    doc.add_root(page.root)
    doc.template = env.get_template("simple.html")
    doc.template_variables.update(extra)
    doc.theme = BOKEH_THEME


class Page(DashboardComponent):
    """The page's parts, and how they follow the run."""

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.head = Div(name="classify_head", sizing_mode="stretch_width", stylesheets=[_WIDE])
        self.speed = ColumnDataSource({"seconds": [], "speed": []}, name="classify_speed")
        self.workers = ColumnDataSource({"name": [], "rows": []}, name="classify_workers")
        self.flight = ColumnDataSource({"block": [], "worker": [], "rows": [], "bad": []}, name="classify_flight")
        self.curve, self.bars = self._curve(), self._bars()
        self.root = column(
            self.head,
            row(self.curve, self.bars, sizing_mode="stretch_width"),
            Div(text="<b>Blocks in flight</b>"),
            self._table(),
            sizing_mode="stretch_width",
            margin=(10, 20, 10, 20),
        )

    def _curve(self):
        plot = figure(
            title="Rows a second",
            x_axis_label="seconds since the run began",
            height=300,
            sizing_mode="stretch_width",
            tools="hover,reset,xwheel_zoom,xpan",
            tooltips=[("rows/s", "@speed{0,0}"), ("after", "@seconds{0} s")],
            toolbar_location="above",
        )
        plot.varea("seconds", "speed", 0, source=self.speed, color=_DONE, alpha=0.15)
        plot.line("seconds", "speed", source=self.speed, color=_DONE, line_width=2)
        plot.y_range.start = 0
        plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
        return plot

    def _bars(self):
        plot = figure(
            title="Rows in finished blocks",
            y_range=[],
            height=300,
            sizing_mode="stretch_width",
            tools="hover",
            tooltips="@name: @rows{0,0} rows",
            toolbar_location=None,
        )
        self.bar = plot.hbar("name", right="rows", source=self.workers, color=_DONE).glyph
        plot.x_range.start = 0
        plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
        plot.ygrid.visible = False
        return plot

    def _table(self):
        number = NumberFormatter(format="0,0")
        columns = [
            TableColumn(field="block", title="block", formatter=number),
            TableColumn(field="worker", title="worker"),
            TableColumn(field="rows", title="rows done", formatter=number),
            TableColumn(field="bad", title="bad rows", formatter=number),
        ]
        return DataTable(
            source=self.flight, columns=columns, index_position=None, height=260, sizing_mode="stretch_width"
        )

    def update(self) -> None:
        """Show how far the run is now."""
        run = newest_run(self.scheduler)
        if run is None:
            self.head.text = _EMPTY
            return
        now = run.snapshot()
        self.head.text = now.html(run.title or run.id, _times(run, now))
        update(self.speed, curve(run))
        self._update_bars(now)
        flying = sorted(run.progress.in_flight()) if not run.ended else []
        names = ("block", "worker", "rows", "bad")
        update(self.flight, {name: [each[place] for each in flying] for place, name in enumerate(names)})

    def _update_bars(self, now: Snapshot) -> None:
        most = sorted(now.by_worker.items(), key=lambda item: item[1])[-_MOST_WORKERS:]
        names = [name for name, _ in most]
        hidden = len(now.by_worker) - len(most)
        self.bars.title.text = "Rows in finished blocks" + (f" ({hidden} more)" if hidden else "")
        if self.bars.y_range.factors != names:
            self.bars.y_range.factors = names
            self.bars.height = max(300, 60 + 20 * len(names))
            self.bar.height = min(0.7, 0.12 * len(names))  # of the place of one
        update(self.workers, {"name": names, "rows": [rows for _, rows in most]})


_EMPTY = "<p>No run of dask-classify has begun on this cluster yet. This page fills when one does.</p>"


def curve(run: FollowedRun) -> dict[str, list[float]]:
    """Rows a second over time, each over the last seconds before."""
    seconds, speed, first = [], [], 0
    for place, (when, done) in enumerate(run.history):
        while first + 1 < place and when - run.history[first][0] > _SMOOTH_SECONDS:
            first += 1
        then, before = run.history[first]
        if when > then:
            seconds.append(when - run.began)
            speed.append((done - before) / (when - then))
    return {"seconds": seconds, "speed": speed}


def _times(run: FollowedRun, now: Snapshot) -> dict[str, str]:
    if run.ended:
        return {"time": format_seconds(run.ended - run.began)}
    times = {"so far": format_seconds(time.time() - run.began)}
    if now.seconds_left is not None and now.rows:
        times["left, about"] = format_seconds(now.seconds_left)
    if run.deadline:
        spare = run.deadline - time.time()
        late = now.seconds_left is not None and now.seconds_left > spare
        times["until the machines' deadline"] = format_seconds(max(0, spare)) + (": too soon" if late else "")
    return times
