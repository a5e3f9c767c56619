"""Accelergy reference tables (ERT and ART) as a technology: energies and areas of whole components, read as they stand.

Format: specification `simulators`, section 4. Names end in `.<component>` or `.<component>[1..N]`; the parts before the
last point, and components and actions that the machine does not have, are ignored. Energies are picojoules an action of
one instance, areas square micrometres of one instance. `N` instances have `N` areas and leak `N` times; their other
actions are counted over all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from topsieve_sim.energy.components import ACTIONS, PLACED, Action, Component, Key
from topsieve_sim.errors import InputError

VERSIONS = ("0.3", "0.4")
_NAME = re.compile(r"^(?:.*\.)?(?P<component>\w+?)(?:\[1\.\.(?P<count>[1-9][0-9]*)\])?$")


@dataclass(frozen=True)
class ReferenceTables:
    """Energy of every action in picojoules and area of every component in square micrometres."""

    energies_pj: Mapping[Key, float]
    areas_um2: Mapping[Component, float]


def is_reference(data: Mapping[str, object]) -> bool:
    """Whether the plain data of a YAML file is reference tables."""
    return "ERT" in data or "ART" in data


def reference_from(data: Mapping[str, object], source: str) -> ReferenceTables:
    """Reference tables from plain data with the keys `ERT` and `ART`.

    Raises
    ------
    InputError
        an entry is missing, named twice, or not a number >= 0.
    """
    energies: dict[Key, float] = {}
    for component, count, table in _tables(data, "ERT", source):
        for entry in _list_of(table, "actions", f"ERT.{component.value}", source):
            if (action := _known(entry.get("name"))) in ACTIONS[component]:
                place = f"ERT.{component.value}.{action.value}"
                if (component, action) in energies:
                    raise InputError("named twice", source=source, field=place)
                each = _number(entry.get("energy"), place, source)
                energies[component, action] = each * (count if action is Action.LEAK_CYCLE else 1)
    areas: dict[Component, float] = {}
    for component, count, table in _tables(data, "ART", source):
        if component in areas:
            raise InputError("named twice", source=source, field=f"ART.{component.value}")
        areas[component] = count * _number(table.get("area"), f"ART.{component.value}", source)
    for component, actions in ACTIONS.items():
        for action in actions:
            if (component, action) not in energies:
                raise InputError(
                    "required entry is missing", source=source, field=f"ERT.{component.value}.{action.value}"
                )
    for component in PLACED:
        if component not in areas:
            raise InputError("required entry is missing", source=source, field=f"ART.{component.value}")
    return ReferenceTables(energies, {component: areas[component] for component in PLACED})


def yaml_mapping(path: Path) -> dict[str, object]:
    """The mapping that a YAML file holds.

    Raises
    ------
    InputError
        the file cannot be read, is not YAML, or holds something else.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", source=str(path)) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError("not valid YAML", source=str(path)) from error
    if not isinstance(data, dict):
        raise InputError("the file must hold a mapping of fields", source=str(path))
    return data


def _tables(data: Mapping[str, object], kind: str, source: str) -> list[tuple[Component, int, Mapping[str, object]]]:
    """(component, instances, table) of every table of `kind` whose component is ours."""
    body = data.get(kind)
    if not isinstance(body, dict):
        raise InputError("required table is missing", source=source, field=kind)
    version = body.get("version")
    if str(version) not in VERSIONS:
        raise InputError(
            "unknown version", source=source, field=f"{kind}.version", value=version, allowed=", ".join(VERSIONS)
        )
    found = []
    for table in _list_of(body, "tables", kind, source):
        match = _NAME.match(str(table.get("name", "")))
        if match and match["component"] in set(Component):
            found.append((Component(match["component"]), int(match["count"] or 1), table))
    return found


def _list_of(body: Mapping[str, object], key: str, place: str, source: str) -> list[Mapping[str, object]]:
    entries = body.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError("must be a list of mappings", source=source, field=f"{place}.{key}")
    return entries


def _known(name: object) -> Action | None:
    return Action(str(name)) if str(name) in set(Action) else None


def _number(value: object, place: str, source: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError("not a number", source=source, field=place, value=value, allowed=">= 0")
    return float(value)
