"""Energy and area: technology tables with sources, action energies of a machine, area by component, reference tables."""

from topsieve_sim.energy.accelergy import (
    area_reference_table,
    energy_reference_table,
    reference_yaml,
    write_accelergy,
)
from topsieve_sim.energy.actions import (
    action_energies_pj,
    cascade_score_bits,
    energy_pj,
    hbm_energy_pj,
    memory_bits,
    total_pj,
)
from topsieve_sim.energy.area import area_um2
from topsieve_sim.energy.components import ACTIONS, Action, Component
from topsieve_sim.energy.reference import ReferenceTables
from topsieve_sim.energy.tables import Calibration, TableRow, TechnologyTable, load_technology, technology_names
from topsieve_sim.energy.technology import technology_digest, technology_of

__all__ = [
    "ACTIONS",
    "Action",
    "Calibration",
    "Component",
    "ReferenceTables",
    "TableRow",
    "TechnologyTable",
    "action_energies_pj",
    "area_reference_table",
    "area_um2",
    "cascade_score_bits",
    "energy_pj",
    "energy_reference_table",
    "hbm_energy_pj",
    "load_technology",
    "memory_bits",
    "reference_yaml",
    "technology_digest",
    "technology_names",
    "technology_of",
    "total_pj",
    "write_accelergy",
]
