"""Dask's dashboard, made when somebody first looks at it.

Its pages need Bokeh, whose import takes most of a second: a run that nobody watches need not wait for that,
nor pay for it.
"""

import asyncio
import importlib

from tornado import web


class _Door(web.RequestHandler):
    """Answers the first request for any page."""

    def initialize(self, pages: "LazyDashboard") -> None:
        self.pages = pages

    async def get(self) -> None:
        try:
            await self.pages.made()
        except ImportError as error:
            self.set_status(503)
            self.finish(f"Dask's dashboard needs Bokeh: {error}")
        else:
            self.redirect("/" + self.request.uri.lstrip("/"))  # to itself, which now is there, or is not found


class LazyDashboard:
    """The pages of one server that was started with `dashboard=False`: Dask's scheduler, or a worker.

    `module` makes them: page.py, with Dask's own, or distributed.dashboard.worker.
    """

    def __init__(self, server, module: str):
        self.server, self.module = server, module
        self.making: asyncio.Task | None = None
        self.door = web.Application([(r".*", _Door, {"pages": self})])
        server.http_application.add_application(self.door)
        server.has_lazy_dashboard = True

    async def made(self) -> None:
        """Wait until the pages are there, and have them made if that has not begun."""
        if self.making is None:
            self.making = asyncio.ensure_future(self._make())
        await self.making

    async def _make(self) -> None:
        dashboard = await asyncio.to_thread(importlib.import_module, self.module)  # the loop must not wait for imports
        application = self.server.http_application
        application.applications.remove(self.door)
        dashboard.connect(application, self.server.http_server, self.server, prefix="/")


def is_lazy(server) -> bool:
    """Whether a server's pages are made when they are looked at."""
    return getattr(server, "has_lazy_dashboard", False)
