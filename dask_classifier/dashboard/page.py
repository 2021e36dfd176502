"""The page /classify of Dask's dashboard: progress, speed, workers and time left of the newest run."""

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
from .progress_bar import progress_bar

PAGE = "classify"
_UPDATE_MS = 500
_SMOOTH_SECONDS = 10.0  # the curve shows a moving average, because rows arrive chunk by chunk
_MAX_WORKERS = 40  # bars in the chart
_DONE = "#2b7a78"
_MAX_FLIGHTS = 64  # rows in the table
_WIDE = ".bk-clearfix { width: 100%; }"  # by default, Bokeh makes it as wide as its text
_WRAPPED = ":host { flex-wrap: wrap; }"  # charts side by side, or one below the other on a phone
_TEMPLATES = env.overlay(loader=jinja2.ChoiceLoader([env.loader, jinja2.PackageLoader("dask_classifier", "templates")]))
_DARK_MODE = """
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
    """Create Dask's pages, and this one."""
    dask_pages.connect(application, http_server, scheduler, prefix=prefix)
    add(scheduler)


def add(scheduler) -> str | None:
    """Add the page to a scheduler's dashboard, with a link in the menu of all pages.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The scheduler.

    Returns
    -------
    str or None
        The path of the page, or None without a dashboard.
    """
    dashboards = [app for app in scheduler.http_application.applications if isinstance(app, BokehTornado)]
    if not dashboards:
        return None
    prefix = dashboards[0].prefix.rstrip("/")
    variables = dask_pages.template_variables(scheduler)  # one object, which all pages share
    if PAGE in variables["pages"]:
        return f"{prefix}/{PAGE}"
    variables["pages"].insert(0, PAGE)
    application = BokehApplication({f"/{PAGE}": document}, scheduler, prefix=prefix, template_variables=variables)
    scheduler.http_application.add_application(application)
    application.initialize(IOLoop.current())
    application.start()
    return f"{prefix}/{PAGE}"


def document(scheduler, extra, doc) -> None:
    """Fill the Bokeh document of a visitor's page."""
    page = Page(scheduler)
    page.update()
    add_periodic_callback(doc, page, _UPDATE_MS)
    doc.title = "dask-classify"
    doc.add_root(page.root)
    doc.js_on_event(DocumentReady, CustomJS(args={"plots": [page.curve, page.bars]}, code=_DARK_MODE))
    doc.template = _TEMPLATES.get_template("classify.html")
    doc.template_variables.update(extra)
    doc.theme = BOKEH_THEME


class Page(DashboardComponent):
    """The components of the page, and their updates."""

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
            x_axis_label="seconds since the run started",
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
        """Show the current state. All components show the same moment: the bars add up to the rows in the headline."""
        run = newest_run(self.scheduler)
        if run is None:
            self.head.text = _EMPTY
            return
        now = run.snapshot()
        self.head.text = progress_bar(now, run.title or run.id, _times(run, now), notes=_notes(run))
        update(self.speed, curve(run))
        self._update_bars(run.rows_by_worker())
        flights = run.in_flight()
        self.flights.text = templating.render(
            "flights.html",
            flights=flights[:_MAX_FLIGHTS],
            more=max(0, len(flights) - _MAX_FLIGHTS),
            seconds=format_seconds,
            bytes=format_bytes,
        )

    def _update_bars(self, rows_by_worker: dict[str, int]) -> None:
        shown = sorted(rows_by_worker.items(), key=lambda item: item[1])[-_MAX_WORKERS:]
        names = [name for name, _ in shown]
        hidden = len(rows_by_worker) - len(shown)
        self.bars.title.text = "Rows done" + (f" ({hidden} more not shown)" if hidden else "")
        if self.bars.y_range.factors != names:
            self.bars.y_range.factors = names
            self.bars.height = max(300, 60 + 20 * len(names))
            self.bar.height = min(0.7, 0.12 * len(names))  # as a share of a bar's space
        update(self.workers, {"name": names, "rows": [rows for _, rows in shown]})


_CHART = {"height": 300, "sizing_mode": "stretch_width", "styles": {"flex": "1 1 320px", "min-width": "0"}}
_EMPTY = "<p>No dask-classify run has started on this cluster yet. This page will show the first one.</p>"


def curve(run: FollowedRun) -> dict[str, list[float]]:
    """Return the rows per second over time, as moving averages, in columns for the chart."""
    seconds, speed, first = [], [], 0
    for position, (when, done) in enumerate(run.history):
        while first + 1 < position and when - run.history[first][0] > _SMOOTH_SECONDS:
            first += 1
        then, before = run.history[first]
        if when > then:
            seconds.append(when - run.began)
            speed.append((done - before) / (when - then))
    return {"seconds": seconds, "speed": speed}


def _notes(run: FollowedRun) -> dict[str, str]:
    """Return the lines below the numbers. They contain no text of the input or of an exception."""
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
    times = {"time so far": format_seconds(time.time() - run.began)}
    if now.seconds_left is not None and now.rows:
        times["estimated time left"] = format_seconds(now.seconds_left)
    if now.pace:
        times["to finish in time"] = now.pace
    if run.deadline:
        spare = run.deadline - time.time()
        late = now.seconds_left is not None and now.seconds_left > spare
        times["until the instances' deadline"] = format_seconds(max(0, spare)) + (" (too early)" if late else "")
    return times
