"""Pages and charts: Jinja2 templates that escape every value (but in Markdown), and what they are filled with.

`render` fills a template of this folder, `charts` lays out bars, curves and points, `drawing` writes SVG or PNG.
"""

from __future__ import annotations

import functools
from typing import Any

import jinja2


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sr_cli", "pages"),
        autoescape=jinja2.select_autoescape(disabled_extensions=("md",), default=True),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters["fixed"] = lambda value, digits: f"{value:.{digits}f}"
    return environment


def render(template: str, **values: Any) -> str:
    """Return a template of this folder filled with values. Text in them is shown as text, never read as HTML."""
    return _environment().get_template(template).render(values)
