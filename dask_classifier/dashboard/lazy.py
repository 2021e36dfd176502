"""Dask's dashboard, created on the first request for one of its pages.

The pages need Bokeh, which takes most of a second to import. A run without visitors does not spend that time.
"""

import asyncio
import importlib

from tornado import web


class _FirstRequest(web.RequestHandler):
    """Handle requests until the dashboard exists."""

    def initialize(self, dashboard: "LazyDashboard") -> None:
        self.dashboard = dashboard

    async def get(self) -> None:
        try:
            await self.dashboard.created()
        except ImportError as error:
            self.set_status(503)
            self.finish(f"Dask's dashboard needs Bokeh: {error}")
        else:
            self.redirect("/" + self.request.uri.lstrip("/"))  # to the same address, which the dashboard now serves


class LazyDashboard:
    """The dashboard of a Dask scheduler or worker that was started with `dashboard=False`.

    Parameters
    ----------
    server : distributed.Scheduler or distributed.Worker
        The server whose dashboard it is.
    module : str
        Name of the module whose `connect` creates the pages.
    """

    def __init__(self, server, module: str):
        self.server, self.module = server, module
        self.creation: asyncio.Task | None = None
        self.placeholder = web.Application([(r".*", _FirstRequest, {"dashboard": self})])
        server.http_application.add_application(self.placeholder)
        server.has_lazy_dashboard = True

    async def created(self) -> None:
        """Wait until the pages exist; start to create them if necessary."""
        if self.creation is None:
            self.creation = asyncio.ensure_future(self._create())
        await self.creation

    async def _create(self) -> None:
        module = await asyncio.to_thread(importlib.import_module, self.module)  # imports would block the event loop
        application = self.server.http_application
        application.applications.remove(self.placeholder)
        module.connect(application, self.server.http_server, self.server, prefix="/")


def is_lazy(server) -> bool:
    """Return whether a server's dashboard is created on the first request."""
    return getattr(server, "has_lazy_dashboard", False)
