"""The page as one file: template, style, scripts and data put together, the same bytes for the same data."""

from __future__ import annotations

import html
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

from topsieve_sim.files import written_whole

# In the order in which the page runs them.
SCRIPTS = ("elements.js", "numbers.js", "linking.js", "tables.js", "axes.js", "scatter.js", "roofline.js", "stalls.js",
           "timeline.js", "page.js")  # fmt: skip


def page_html(data: dict[str, Any]) -> str:
    """The page that shows `data`: no request leaves it, its style and scripts are inside."""
    here = resources.files("topsieve.report_page")
    parts = {
        "title": html.escape(data["title"]),
        "style": here.joinpath("page.css").read_text(encoding="utf-8"),
        "script": "\n".join(here.joinpath("scripts", name).read_text(encoding="utf-8") for name in SCRIPTS),
        "data": script_json(data),
    }
    template = here.joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def script_json(data: Any) -> str:
    """`data` as JSON that may stand in a script element: no `<` is left that could end the element or begin a comment."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def write_page(data: dict[str, Any], path: str | Path) -> None:
    """Write `page_html` to `path`, whole or not at all.

    Raises
    ------
    InputError
        the file cannot be written.
    """
    with written_whole(path) as stream:
        stream.write(page_html(data))
