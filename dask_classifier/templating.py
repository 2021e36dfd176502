"""Render the HTML templates."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


@functools.cache
def _templates() -> "jinja2.Environment":
    import jinja2  # not needed by most commands

    loader = jinja2.PackageLoader("dask_classifier", "templates")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def render(template: str, **values: object) -> str:
    """Render a template from the folder `templates`. Values are escaped unless they are marked as HTML."""
    return _templates().get_template(template).render(**values)


def table(title: str, values: Mapping[str, object]) -> str:
    """Return an HTML table of names and values, for a notebook cell."""
    return render("table.html", title=title, values={name: str(value) for name, value in values.items()})
