"""Where a simulation books what it finds: cycles by unit and cause, bytes by kind, actions by component; by layer."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from topsieve_sim.energy import Action, Component
from topsieve_sim.report import Slice, Stall, Traffic, Unit

Actions = Mapping[tuple[Component, Action], int]

# Bounds the size of a report; longer runs have several descriptors in one slice.
MAXIMUM_SLICES = 4096


@dataclass(frozen=True)
class UnitCycles:
    """What one unit did while one descriptor ran; busy and stalls sum to the descriptor's cycles."""

    busy: int
    stalls: Mapping[Stall, int]

    @property
    def active(self) -> int:
        """Cycles from the descriptor's start to the unit's last work."""
        waits = sum(self.stalls.values())
        return self.busy + waits - self.stalls.get(Stall.DRAINED, 0)


@dataclass(frozen=True)
class Cost:
    """What one descriptor costs. Units that are not named are idle."""

    cycles: int
    units: Mapping[Unit, UnitCycles]
    traffic: Mapping[Traffic, int]
    actions: Actions


@dataclass
class Ledger:
    """Sums of costs; all are exact integers until energy is asked for."""

    cycles: int = 0
    busy: Counter[Unit] = field(default_factory=Counter)
    stalls: defaultdict[Unit, Counter[Stall]] = field(default_factory=lambda: defaultdict(Counter))
    traffic: Counter[Traffic] = field(default_factory=Counter)
    layer_cycles: Counter[int] = field(default_factory=Counter)
    layer_bytes: Counter[int] = field(default_factory=Counter)
    layer_actions: defaultdict[int, Counter[tuple[Component, Action]]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    kind_cycles: Counter[str] = field(default_factory=Counter)
    spans: list[tuple[str, int, Mapping[Unit, UnitCycles]]] = field(default_factory=list)

    def book(self, layer: int, kind: str, name: str, cost: Cost) -> None:
        """Add the cost of the next descriptor, which starts where the one before it ended."""
        for unit, spent in cost.units.items():
            self.busy[unit] += spent.busy
            stalls = self.stalls[unit]
            for cause, cycles in spent.stalls.items():
                stalls[cause] += cycles
        for traffic, size in cost.traffic.items():
            self.traffic[traffic] += size
            self.layer_bytes[layer] += size
        actions = self.layer_actions[layer]
        for key, count in cost.actions.items():
            actions[key] += count
        self.spans.append((name, self.cycles, cost.units))
        self.cycles += cost.cycles
        self.layer_cycles[layer] += cost.cycles
        self.kind_cycles[kind] += cost.cycles

    def total_actions(self) -> Counter[tuple[Component, Action]]:
        """Actions of all layers."""
        total: Counter[tuple[Component, Action]] = Counter()
        for actions in self.layer_actions.values():
            total.update(actions)
        return total

    def timeline(self) -> tuple[Slice, ...]:
        """At most `MAXIMUM_SLICES` slices: a unit's share of a descriptor, from its start to the unit's last work."""
        per_slice = max(1, -(-len(self.spans) // (MAXIMUM_SLICES // len(Unit))))
        slices: list[Slice] = []
        for first in range(0, len(self.spans), per_slice):
            members = self.spans[first : first + per_slice]
            name = members[0][0] if len(members) == 1 else f"{members[0][0]} to {members[-1][0]}"
            pieces: dict[Unit, tuple[int, int, int]] = {}  # start, end, busy cycles
            for _, begin, units in members:
                for unit, spent in units.items():
                    if spent.busy:
                        start, _, busy = pieces.get(unit, (begin, begin, 0))
                        pieces[unit] = (start, begin + spent.active, busy + spent.busy)
            slices += [
                Slice(unit=unit, name=name, start_cycle=start, duration_cycles=end - start, busy_cycles=busy)
                for unit, (start, end, busy) in pieces.items()
            ]
        return tuple(slices)
