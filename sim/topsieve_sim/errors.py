"""The one exception for bad input: a single line that says where, what and what is allowed."""

from __future__ import annotations


class InputError(Exception):
    """Bad input from a user: a file, a flag or a configuration value.

    The command line prints `str(error)`, one line, and exits with code 2. Library callers catch this one type.

    Parameters
    ----------
    problem : what is wrong, without a trailing full stop.
    source : the file, flag or object the value came from.
    field : dotted path of the field, or row and column.
    value : the offending value (shown with `repr`, shortened).
    allowed : what would have been accepted.
    """

    def __init__(
        self,
        problem: str,
        *,
        source: str | None = None,
        field: str | None = None,
        value: object | None = None,
        allowed: str | None = None,
    ) -> None:
        self.problem = problem
        self.source = source
        self.field = field
        self.value = value
        self.allowed = allowed
        super().__init__(self._line())

    def _line(self) -> str:
        where = ": ".join(part for part in (self.source, self.field) if part)
        line = f"{where}: {self.problem}" if where else self.problem
        if self.value is not None:
            shown = repr(self.value)
            line += f" (got {shown if len(shown) <= 60 else shown[:57] + '...'})"
        if self.allowed:
            line += f"; allowed: {self.allowed}"
        return " ".join(line.split())
