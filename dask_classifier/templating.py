"""HTML: the templates, filled in."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


@functools.cache
def _templates() -> "jinja2.Environment":
    import jinja2  # few need it

    loader = jinja2.PackageLoader("dask_classifier", "templates")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def render(template: str, **values: object) -> str:
    """A template of the folder templates, filled in; what is not HTML of ours is escaped."""
    return _templates().get_template(template).render(**values)


def table(title: str, values: Mapping[str, object]) -> str:
    """Names and values, for a notebook's cell."""
    return render("table.html", title=title, values={name: str(value) for name, value in values.items()})
