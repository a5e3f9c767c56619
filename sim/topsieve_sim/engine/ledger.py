"""Where a simulation books what it finds: cycles by unit and cause, bytes by kind, actions by component; by layer."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import TypeAdapter

from topsieve_sim.energy import Action, Component
from topsieve_sim.report import Slice, Stall, Traffic, Unit

Actions = Mapping[tuple[Component, Action], int]

# Bounds the size of a report; longer runs have several descriptors in one slice.
MAXIMUM_SLICES = 2048

_SLICES = TypeAdapter(tuple[Slice, ...])


class UnitCycles(NamedTuple):
    """What one unit did while one descriptor ran; the cycles sum to the descriptor's."""

    busy: int
    input: int = 0
    memory: int = 0
    downstream: int = 0
    drained: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one descriptor costs. Units that are not named are idle; `actions` are to be added up."""

    cycles: int
    units: Mapping[Unit, UnitCycles]
    traffic: Mapping[Traffic, int]
    actions: tuple[Actions, ...]


@dataclass
class Ledger:
    """Sums of costs; all are exact integers until energy is asked for."""

    cycles: int = 0
    unit_cycles: dict[Unit, list[int]] = field(default_factory=lambda: {unit: [0] * 5 for unit in Unit})
    traffic: Counter[Traffic] = field(default_factory=Counter)
    layer_cycles: Counter[int] = field(default_factory=Counter)
    layer_bytes: Counter[int] = field(default_factory=Counter)
    kind_cycles: Counter[str] = field(default_factory=Counter)
    kind_bytes: Counter[str] = field(default_factory=Counter)
    spans: list[tuple[str, int, Mapping[Unit, UnitCycles]]] = field(default_factory=list)
    # Equal descriptors share one object of actions, so each is kept once with the number of its uses.
    _actions: defaultdict[tuple[int, str], dict[int, tuple[Actions, int]]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    def book(self, layer: int, kind: str, name: str, cost: Cost) -> None:
        """Add the cost of the next descriptor, which starts where the one before it ended."""
        for unit, spent in cost.units.items():
            total = self.unit_cycles[unit]
            for place, cycles in enumerate(spent):
                total[place] += cycles
        for traffic, size in cost.traffic.items():
            self.traffic[traffic] += size
            self.layer_bytes[layer] += size
            self.kind_bytes[kind] += size
        uses = self._actions[layer, kind]
        for actions in cost.actions:
            uses[id(actions)] = (actions, uses.get(id(actions), (actions, 0))[1] + 1)
        self.spans.append((name, self.cycles, cost.units))
        self.cycles += cost.cycles
        self.layer_cycles[layer] += cost.cycles
        self.kind_cycles[kind] += cost.cycles

    def actions(self) -> dict[tuple[int, str], Counter[tuple[Component, Action]]]:
        """Actions by layer and kind."""
        found = {}
        for place, booked in self._actions.items():
            total = found[place] = Counter[tuple[Component, Action]]()
            for actions, uses in booked.values():
                for key, count in actions.items():
                    total[key] += uses * count
        return found

    def stalls(self, unit: Unit) -> dict[Stall, int]:
        """Cycles without work by cause; a unit is idle in whatever cycles no descriptor that uses it ran."""
        spent = UnitCycles(*self.unit_cycles[unit])
        return {
            Stall.INPUT: spent.input,
            Stall.MEMORY: spent.memory,
            Stall.DOWNSTREAM: spent.downstream,
            Stall.DRAINED: spent.drained,
            Stall.IDLE: self.cycles - sum(spent),
        }

    def timeline(self) -> tuple[Slice, ...]:
        """At most `MAXIMUM_SLICES` slices: a unit's share of a descriptor, from its start to the unit's last work."""
        per_slice = max(1, -(-len(self.spans) // (MAXIMUM_SLICES // len(Unit))))
        slices: list[dict[str, object]] = []
        for first in range(0, len(self.spans), per_slice):
            members = self.spans[first : first + per_slice]
            name = members[0][0] if len(members) == 1 else f"{members[0][0]} to {members[-1][0]}"
            pieces: dict[Unit, tuple[int, int, int]] = {}  # start, end, busy cycles
            for _, begin, units in members:
                for unit, spent in units.items():
                    if spent.busy:
                        start, _, busy = pieces.get(unit, (begin, begin, 0))
                        pieces[unit] = (start, begin + sum(spent) - spent.drained, busy + spent.busy)
            slices += [
                {"unit": unit, "name": name, "start_cycle": start, "duration_cycles": end - start, "busy_cycles": busy}
                for unit, (start, end, busy) in pieces.items()
            ]
        return _SLICES.validate_python(slices)
