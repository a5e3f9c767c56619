"""Checks of method parameters; each failure is one line that names the parameter."""

from __future__ import annotations

from topsieve_sim.errors import InputError


def check_share(method: str, field: str, value: float | None) -> None:
    """`value` must be a share in (0, 1]; None passes."""
    if value is not None and not (_is_number(value) and 0 < value <= 1):
        raise InputError(
            "wrong value", source=f"method {method}", field=field, value=value, allowed="a number in (0, 1]"
        )


def check_range(method: str, field: str, value: float, low: float, high: float | None = None) -> None:
    """`value` must be a number in [low, high]; without `high`, at least `low`."""
    if not (_is_number(value) and low <= value and (high is None or value <= high)):
        allowed = f"a number of at least {low}" if high is None else f"a number in [{low}, {high}]"
        raise InputError("wrong value", source=f"method {method}", field=field, value=value, allowed=allowed)


def check_count(method: str, field: str, value: int | None, low: int = 0) -> None:
    """`value` must be an integer of at least `low`; None passes."""
    if value is not None and (type(value) is not int or value < low):
        allowed = f"an integer of at least {low}"
        raise InputError("wrong value", source=f"method {method}", field=field, value=value, allowed=allowed)


def check_odd(method: str, field: str, value: int) -> None:
    """`value` must be an odd integer of at least 1."""
    if type(value) is not int or value < 1 or value % 2 == 0:
        raise InputError(
            "wrong value", source=f"method {method}", field=field, value=value, allowed="an odd integer of at least 1"
        )


def check_choice(method: str, field: str, value: str, choices: tuple[str, ...]) -> None:
    """`value` must be one of `choices`."""
    if value not in choices:
        raise InputError(
            "unknown value", source=f"method {method}", field=field, value=value, allowed=", ".join(choices)
        )


def check_flag(method: str, field: str, value: bool) -> None:
    """`value` must be true or false."""
    if type(value) is not bool:
        raise InputError("wrong value", source=f"method {method}", field=field, value=value, allowed="true or false")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
