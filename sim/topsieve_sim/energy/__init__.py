"""Energy and area: technology tables with sources, action energies of a machine, area by component."""

from topsieve_sim.energy.accelergy import area_reference_table, energy_reference_table, write_accelergy
from topsieve_sim.energy.actions import (
    Action,
    Component,
    action_energies_pj,
    cascade_score_bits,
    energy_pj,
    hbm_energy_pj,
    memory_bits,
    total_pj,
)
from topsieve_sim.energy.area import area_um2
from topsieve_sim.energy.tables import TableRow, TechnologyTable, load_technology, technology_names

__all__ = [
    "Action",
    "Component",
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
    "technology_names",
    "total_pj",
    "write_accelergy",
]
