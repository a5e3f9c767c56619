"""From what a run booked to its report."""

from __future__ import annotations

import math
import platform
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np

from topsieve_sim import __version__
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.energy import (
    Action,
    Component,
    action_energies_pj,
    area_um2,
    energy_pj,
    memory_bits,
    technology_digest,
    total_pj,
)
from topsieve_sim.engine.ledger import Ledger
from topsieve_sim.engine.program import AttentionWork, Program
from topsieve_sim.engine.singles import HOST_KINDS, LINEAR_KINDS
from topsieve_sim.report import LayerRow, OperationRow, Report, SelectionCost, TokenRow, Traffic, Unit, UnitRow

ATTENTION_KIND = "attention"
# What attention descriptors do that the plain model does not ask for.
SELECTING_COMPONENTS = frozenset({Component.IMPORTANCE, Component.VALUE_TOPK})

_Counts = Counter[tuple[Component, Action]]


@dataclass
class Tokens:
    """Rows and tokens that the attention descriptors saw, by layer."""

    rows: list[TokenRow] = field(default_factory=list)
    query_rows: Counter[int] = field(default_factory=Counter)
    lsb_rows: Counter[int] = field(default_factory=Counter)

    def add(self, work: AttentionWork, lsb_rows: int, cycles: int) -> None:
        """Note one descriptor."""
        op = work.query_key
        self.query_rows[op.layer] += work.heads * op.queries
        self.lsb_rows[op.layer] += lsb_rows
        self.rows.append(
            TokenRow(
                sequence=op.sequence,
                step=op.step,
                layer=op.layer,
                heads=work.heads,
                queries=op.queries,
                keys=op.keys,
                kept_values=work.kept,
                lsb_rows=lsb_rows,
                cycles=cycles,
            )
        )


def assembled(
    program: Program, config: AcceleratorConfig, seed: int, ledger: Ledger, tokens: Tokens, notes: tuple[str, ...]
) -> Report:
    """The report of one run, without its timing."""
    energies = action_energies_pj(config)
    layers: dict[int, _Counts] = {layer: Counter() for layer in sorted({layer for layer, _ in program.totals})}
    kinds: defaultdict[str, _Counts] = defaultdict(Counter)
    for (layer, kind), counts in ledger.actions().items():
        layers[layer].update(counts)
        kinds[kind].update(counts)
    for layer, counts in layers.items():
        counts.update(_leakage(ledger.layer_cycles[layer], config))
    attending = Counter(kinds[ATTENTION_KIND])
    for kind, counts in kinds.items():
        counts.update(_leakage(ledger.kind_cycles[kind], config))
    total: _Counts = Counter()
    for counts in layers.values():
        total.update(counts)
    kind_energy = {kind: total_pj(energy_pj(counts, energies)) for kind, counts in kinds.items()}
    energy = energy_pj(total, energies)
    area = area_um2(config)
    totals = program.totals.values()
    trace = program.trace
    return Report(
        accelerator=config,
        accelerator_digest=config.digest,
        model=trace.model,
        method=trace.method,
        seed=seed,
        versions={**versions(), "technology_tables": technology_digest(config.technology)},
        cycles=ledger.cycles,
        latency_us=config.microseconds(ledger.cycles),
        macs=sum(total.macs for total in totals),
        flops=sum(total.flops for total in totals),
        attention_flops=sum(
            total.flops for (_, kind), total in program.totals.items() if kind in ("query_key", "probability_value")
        ),
        attention_flops_dense=program.dense_attention_flops,
        query_rows=sum(tokens.query_rows.values()),
        lsb_rows=sum(tokens.lsb_rows.values()),
        dram_bytes={kind: ledger.traffic[kind] for kind in Traffic},
        dram_bytes_total=sum(ledger.traffic.values()),
        energy_pj={part.value: {act.value: pj for act, pj in acts.items()} for part, acts in energy.items()},
        energy_total_pj=total_pj(energy),
        area_um2={part.value: value for part, value in area.items()},
        area_total_um2=math.fsum(area.values()),
        operations=_operation_rows(program, config, ledger, kind_energy),
        selection=_selection_cost(ledger, kind_energy, energy_pj(attending, energies)),
        layers=_layer_rows(program, ledger, layers, energies, tokens),
        tokens=tuple(tokens.rows),
        units=_unit_rows(ledger),
        timeline=ledger.timeline(),
        notes=notes,
    )


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    return {
        "topsieve": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": version("numba"),
    }


def _operation_rows(
    program: Program, config: AcceleratorConfig, ledger: Ledger, kind_energy: dict[str, float]
) -> tuple[OperationRow, ...]:
    """One row a kind; cycles, bytes and energy of a whole attention group stand in its `query_key` row."""
    kinds: dict[str, list[int]] = {}
    for (_, kind), total in sorted(program.totals.items()):
        row = kinds.setdefault(kind, [0, 0, 0])
        for place, value in enumerate((total.count, total.macs, total.flops)):
            row[place] += value
    return tuple(
        OperationRow(
            kind=kind,
            where="host" if kind in HOST_KINDS and not config.fully_connected else "accelerator",
            count=count,
            macs=macs,
            flops=flops,
            cycles=ledger.kind_cycles[booked],
            dram_bytes=ledger.kind_bytes[booked],
            energy_pj=kind_energy.get(booked, 0.0),
        )
        for kind, (count, macs, flops) in kinds.items()
        for booked in [ATTENTION_KIND if kind == "query_key" else kind]
    )


def _selection_cost(
    ledger: Ledger, kind_energy: dict[str, float], attention: Mapping[Component, Mapping[Action, float]]
) -> SelectionCost:
    """Of the descriptors that are neither attention nor linear maps, and of the selecting parts of `attention`."""
    selecting = [kind for kind in kind_energy if kind != ATTENTION_KIND and kind not in LINEAR_KINDS]
    inside = (sum(acts.values()) for part, acts in attention.items() if part in SELECTING_COMPONENTS)
    return SelectionCost(
        cycles=sum(ledger.kind_cycles[kind] for kind in selecting),
        overlapped_cycles=ledger.unit_cycles[Unit.VALUE_TOPK][0],
        dram_bytes=sum(ledger.kind_bytes[kind] for kind in selecting),
        energy_pj=math.fsum([*(kind_energy[kind] for kind in selecting), *inside]),
    )


def _layer_rows(
    program: Program,
    ledger: Ledger,
    actions: dict[int, Counter[tuple[Component, Action]]],
    energies: dict[tuple[Component, Action], float],
    tokens: Tokens,
) -> tuple[LayerRow, ...]:
    rows = []
    for layer, counts in actions.items():
        totals = [total for (place, _), total in program.totals.items() if place == layer]
        rows.append(
            LayerRow(
                layer=layer,
                operations=sum(total.count for total in totals),
                cycles=ledger.layer_cycles[layer],
                macs=sum(total.macs for total in totals),
                flops=sum(total.flops for total in totals),
                dram_bytes=ledger.layer_bytes[layer],
                energy_pj=total_pj(energy_pj(counts, energies)),
                query_rows=tokens.query_rows[layer],
                lsb_rows=tokens.lsb_rows[layer],
            )
        )
    return tuple(rows)


def _leakage(cycles: int, config: AcceleratorConfig) -> dict[tuple[Component, Action], int]:
    """Every memory of the machine leaks in every one of `cycles`."""
    return {(component, Action.LEAK_CYCLE): cycles for component in memory_bits(config)}


def _unit_rows(ledger: Ledger) -> tuple[UnitRow, ...]:
    return tuple(
        UnitRow(unit=unit, busy_cycles=ledger.unit_cycles[unit][0], stall_cycles=ledger.stalls(unit)) for unit in Unit
    )
