"""Pages and charts: Jinja2 templates that escape every value, and what they are filled with.

`render` fills a template of this folder, `charts` lays out bars, curves and points, `drawing` writes SVG or PNG.
"""

from sr_cli.pages.templates import render

__all__ = ["render"]
