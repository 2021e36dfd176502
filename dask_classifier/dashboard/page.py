"""The page /classify of Dask's dashboard: how far the newest run is, how fast, where, and until when."""

import time

import jinja2
from bokeh.events import DocumentReady
from bokeh.layouts import column, row
from bokeh.models import BasicTicker, ColumnDataSource, CustomJS, Div, NumeralTickFormatter
from bokeh.plotting import figure
from bokeh.server.tornado import BokehTornado
from distributed.dashboard import scheduler as dask_pages
from distributed.dashboard.components import DashboardComponent, add_periodic_callback
from distributed.dashboard.components.scheduler import BOKEH_THEME, env
from distributed.dashboard.core import BokehApplication
from distributed.dashboard.utils import update
from tornado.ioloop import IOLoop

from .. import templating
from ..runs.progress import Snapshot
from ..units import format_bytes, format_seconds
from .events import FollowedRun, newest_run

PAGE = "classify"
_UPDATE_MS = 500
_SMOOTH_SECONDS = 10.0  # of the curve of rows/s: blocks report chunk by chunk
_MOST_WORKERS = 40  # bars
_DONE = "#2b7a78"
_MOST_FLIGHTS = 64  # rows of the table
_WIDE = ".bk-clearfix { width: 100%; }"  # Bokeh's own is as wide as the text
_WRAPPED = ":host { flex-wrap: wrap; }"  # charts side by side, or below each other on a phone
_TEMPLATES = env.overlay(loader=jinja2.ChoiceLoader([env.loader, jinja2.PackageLoader("dask_classifier", "templates")]))
_IN_THE_DARK = """
if (matchMedia('(prefers-color-scheme: dark)').matches)
    for (const plot of plots) {
        plot.title.text_color = '#c5ced3'
        plot.outline_line_color = '#313b40'
        for (const axis of [...plot.left, ...plot.below])
            if ('axis_label_text_color' in axis)
                Object.assign(axis, {axis_label_text_color: '#c5ced3', major_label_text_color: '#c5ced3',
                    axis_line_color: '#5b6a72', major_tick_line_color: '#5b6a72', minor_tick_line_color: null})
        for (const grid of plot.center)
            if ('grid_line_color' in grid) grid.grid_line_color = '#313b40'
    }
"""


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
    doc.js_on_event(DocumentReady, CustomJS(args={"plots": [page.curve, page.bars]}, code=_IN_THE_DARK))
    doc.template = _TEMPLATES.get_template("classify.html")
    doc.template_variables.update(extra)
    doc.theme = BOKEH_THEME


class Page(DashboardComponent):
    """The page's parts, and how they follow the run."""

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.head = Div(name="classify_head", sizing_mode="stretch_width", stylesheets=[_WIDE])
        self.speed = ColumnDataSource({"seconds": [], "speed": []}, name="classify_speed")
        self.workers = ColumnDataSource({"name": [], "rows": []}, name="classify_workers")
        self.flights = Div(name="classify_flights", sizing_mode="stretch_width", stylesheets=[_WIDE])
        self.curve, self.bars = self._curve(), self._bars()
        self.root = column(
            self.head,
            row(self.curve, self.bars, sizing_mode="stretch_width", stylesheets=[_WRAPPED]),
            Div(text="<b>Blocks in flight</b>"),
            self.flights,
            sizing_mode="stretch_width",
            margin=(10, 10, 10, 10),
        )

    def _curve(self):
        plot = figure(
            title="Rows per second",
            x_axis_label="seconds since the run began",
            **_CHART,
            tools="hover,reset,xwheel_zoom,xpan",
            tooltips=[("rows/s", "@speed{0,0}"), ("after", "@seconds{0} s")],
            toolbar_location="above",
        )
        plot.varea("seconds", "speed", 0, source=self.speed, color=_DONE, alpha=0.15)
        plot.line("seconds", "speed", source=self.speed, color=_DONE, line_width=2)
        plot.y_range.start = 0
        plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
        plot.xaxis.ticker = BasicTicker(desired_num_ticks=4)
        return plot

    def _bars(self):
        plot = figure(
            title="Rows done",
            y_range=[],
            **_CHART,
            tools="hover",
            tooltips="@name: @rows{0,0} rows",
            toolbar_location=None,
        )
        self.bar = plot.hbar("name", right="rows", source=self.workers, color=_DONE).glyph
        plot.x_range.start = 0
        plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
        plot.xaxis.ticker = BasicTicker(desired_num_ticks=3, num_minor_ticks=0)
        plot.ygrid.visible = False
        return plot

    def update(self) -> None:
        """Show how far the run is now. All parts show one moment: the bars add up to what the headline says."""
        run = newest_run(self.scheduler)
        if run is None:
            self.head.text = _EMPTY
            return
        now = run.snapshot()
        self.head.text = now.html(run.title or run.id, _times(run, now), notes=_notes(run))
        update(self.speed, curve(run))
        self._update_bars(run.rows_by_worker())
        flights = run.in_flight()
        self.flights.text = templating.render(
            "flights.html",
            flights=flights[:_MOST_FLIGHTS],
            more=max(0, len(flights) - _MOST_FLIGHTS),
            seconds=format_seconds,
            bytes=format_bytes,
        )

    def _update_bars(self, rows_by_worker: dict[str, int]) -> None:
        most = sorted(rows_by_worker.items(), key=lambda item: item[1])[-_MOST_WORKERS:]
        names = [name for name, _ in most]
        hidden = len(rows_by_worker) - len(most)
        self.bars.title.text = "Rows done" + (f" ({hidden} more)" if hidden else "")
        if self.bars.y_range.factors != names:
            self.bars.y_range.factors = names
            self.bars.height = max(300, 60 + 20 * len(names))
            self.bar.height = min(0.7, 0.12 * len(names))  # of the place of one
        update(self.workers, {"name": names, "rows": [rows for _, rows in most]})


_CHART = {"height": 300, "sizing_mode": "stretch_width", "styles": {"flex": "1 1 320px", "min-width": "0"}}
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


def _notes(run: FollowedRun) -> dict[str, str]:
    """What is not a number; no text of the source, nor of an exception."""
    notes = {"classifier": run.classifier} if run.classifier else {}
    if run.kinds:
        kinds = (f"{kind} in {blocks:,} block{'' if blocks == 1 else 's'}" for kind, blocks in run.kinds.most_common(6))
        notes["first bad row of a block"] = ", ".join(kinds)
    if run.complete and run.report:
        notes["report"] = run.report
    return notes


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
