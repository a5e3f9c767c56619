"""Published numbers beside ours: `validate(Workbench("spatten"))`, then `markdown` or `as_json`.

A row is a `Check` in the `SECTIONS` of the file of its subject; a further subject is a further file in `document.SECTIONS`.
"""

from topsieve_sim.validation.checks import AGREEMENT, Check, Result, Section, Status, Unmodelled, Verdict, run_section
from topsieve_sim.validation.document import SECTIONS, UNMODELLED, Validation, as_json, markdown, validate
from topsieve_sim.validation.workbench import Workbench

__all__ = [
    "AGREEMENT",
    "SECTIONS",
    "UNMODELLED",
    "Check",
    "Result",
    "Section",
    "Status",
    "Unmodelled",
    "Validation",
    "Verdict",
    "Workbench",
    "as_json",
    "markdown",
    "run_section",
    "validate",
]
