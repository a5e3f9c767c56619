"""Energies and areas as Accelergy reference tables (ERT and ART, version 0.4), for tools of the Timeloop family.

Format: specification `simulators`, section 4. A component has one instance; energies are in picojoules, areas in square
micrometres, and leakage is the action `leak_cycle` of each cycle. `reference` reads what is written here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.energy.actions import action_energies_pj
from topsieve_sim.energy.area import area_um2
from topsieve_sim.energy.technology import FOLDER_FILES
from topsieve_sim.errors import InputError
from topsieve_sim.files import written_whole

FORMAT_VERSION = "0.4"


def energy_reference_table(config: AcceleratorConfig) -> dict[str, Any]:
    """The ERT of `config`: a table a component, an entry an action."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for (component, action), energy in action_energies_pj(config).items():
        tables.setdefault(component.value, []).append({"name": action.value, "arguments": {}, "energy": energy})
    rows = [{"name": _instance(name), "actions": actions} for name, actions in sorted(tables.items())]
    return {"ERT": {"version": FORMAT_VERSION, "tables": rows}}


def area_reference_table(config: AcceleratorConfig) -> dict[str, Any]:
    """The ART of `config`: an area a component."""
    rows = [{"name": _instance(part.value), "area": area} for part, area in sorted(area_um2(config).items())]
    return {"ART": {"version": FORMAT_VERSION, "tables": rows}}


def reference_yaml(config: AcceleratorConfig) -> str:
    """Both tables as one YAML text, which `technology` takes back: to be edited and handed in again.

    Raises
    ------
    InputError
        `config.technology` names no table.
    """
    return yaml.safe_dump(energy_reference_table(config) | area_reference_table(config), sort_keys=False)


def write_accelergy(config: AcceleratorConfig, folder: str | Path) -> tuple[Path, Path]:
    """Write `ERT.yaml` and `ART.yaml` into `folder` (made if missing) and return their paths.

    Raises
    ------
    InputError
        a file cannot be written, or `config.technology` names no table.
    """
    tables = (energy_reference_table(config), area_reference_table(config))
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder: {error.strerror or error}", source=str(target)) from error
    for name, table in zip(FOLDER_FILES, tables, strict=True):
        with written_whole(target / name) as stream:
            yaml.safe_dump(table, stream, sort_keys=False)
    return target / FOLDER_FILES[0], target / FOLDER_FILES[1]


def _instance(component: str) -> str:
    return f"system_top_level.{component}[1..1]"
