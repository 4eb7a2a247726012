"""The report's HTML: one self-contained page from its sections."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).with_name("templates")


@cache
def vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script that fits into a page."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def environment() -> Environment:
    """Jinja over the templates; `as_json` writes data that no text in it can break out of."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["as_json"] = as_json
    made.globals["source"] = lambda name: (TEMPLATES / name).read_text()
    return made


def as_json(value: object) -> str:
    """JSON for a script element: `<`, `>` and `&` are escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def render(**context: object) -> str:
    """The page from its sections, nothing to load."""
    return environment().get_template("report.html").render(vega=vega(), **context)
