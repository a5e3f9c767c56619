"""What `technology` of a configuration names: a shipped table, a table of primitives, or reference tables of the user's."""

from __future__ import annotations

import hashlib
from pathlib import Path

from topsieve_sim.energy.reference import ReferenceTables, is_reference, reference_from, yaml_mapping
from topsieve_sim.energy.tables import TechnologyTable, load_technology, table_from, technology_names

# Files of a folder of reference tables, as Accelergy writes them.
FOLDER_FILES = ("ERT.yaml", "ART.yaml")


def technology_of(name: str) -> TechnologyTable | ReferenceTables:
    """The table that `name` stands for.

    Parameters
    ----------
    name : a shipped technology; a YAML file of primitives in the form of the shipped ones; a YAML file with the keys
        `ERT` and `ART`; or a folder with `ERT.yaml` and `ART.yaml`.

    Raises
    ------
    InputError
        no shipped table and no readable file, or a file with missing or wrong entries.
    """
    path = Path(name)
    if name in technology_names() or not (path.exists() or path.suffix in {".yaml", ".yml"}):
        return load_technology(name)
    if path.is_dir():
        data: dict[str, object] = {}
        for file in FOLDER_FILES:
            data |= yaml_mapping(path / file)
        return reference_from(data, name)
    data = yaml_mapping(path)
    return reference_from(data, name) if is_reference(data) else table_from(data, name)


def technology_digest(name: str) -> str:
    """First 16 hex digits of the SHA-256 of the table's content; equal for equal numbers and sources.

    Raises
    ------
    InputError
        as `technology_of`.
    """
    technology = technology_of(name)
    if isinstance(technology, ReferenceTables):
        content = repr((sorted(technology.energies_pj.items()), sorted(technology.areas_um2.items())))
    else:
        content = repr((technology.all_rows(), technology.calibration))
    return hashlib.sha256(content.encode()).hexdigest()[:16]
