"""The report page: one HTML file that needs no server and no network.

`columns` names what the tables show, `content` and `sweep` gather it as plain data, `writing` puts data, `page.html`,
`page.css` and the scripts of `scripts` into the one file.
"""

from topsieve.report_page.content import comparison_page, run_page
from topsieve.report_page.sweep import SweepResults, is_sweep, read_sweep, sweep_page
from topsieve.report_page.writing import SCRIPTS, page_html, write_page

__all__ = [
    "SCRIPTS",
    "SweepResults",
    "comparison_page",
    "is_sweep",
    "page_html",
    "read_sweep",
    "run_page",
    "sweep_page",
    "write_page",
]
