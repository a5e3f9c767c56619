"""`ClosedForm`: cycles, energy, bytes and area of one trace on many machines at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.closed_form.facts import (
    Content,
    Facts,
    Single,
    content_name,
    content_of,
    facts_name,
    facts_of,
    refuse,
)
from topsieve_sim.closed_form.rows import Machines, descriptor_cycles
from topsieve_sim.energy import Action, action_energies_pj, area_um2, memory_bits
from topsieve_sim.energy.components import Key
from topsieve_sim.engine.ledger import Cost
from topsieve_sim.engine.program import Program, prepare
from topsieve_sim.engine.singles import at_operation, single_cost
from topsieve_sim.golden.attention_latency import attention_latencies
from topsieve_sim.timing.attention_group import operand_banks
from topsieve_sim.trace import Trace
from topsieve_sim.trace.ops import TopK

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

T = TypeVar("T")

# How much is remembered: probabilities in as many formats, and rows with as many sets of selections.
_REMEMBERED_CONTENTS = 4
_REMEMBERED_FACTS = 32


@dataclass(frozen=True)
class Estimates:
    """What the machines take, an array [machines] each, in the order they were given.

    cycles, dram_bytes, query_rows, lsb_rows : int64. latency_us, energy_pj, area_um2 : float64.
    """

    cycles: Int64
    latency_us: Float64
    dram_bytes: Int64
    energy_pj: Float64
    area_um2: Float64
    query_rows: Int64
    lsb_rows: Int64

    @property
    def power_w(self) -> Float64:
        """Energy over time."""
        return np.divide(
            self.energy_pj * 1e-6, self.latency_us, out=np.zeros_like(self.energy_pj), where=self.latency_us > 0
        )


class ClosedForm:
    """A prepared trace whose costs on machines with an ideal memory are found in closed form.

    `seed` draws the scores that the trace does not hold, as in `simulate`.
    """

    def __init__(self, trace: Trace | Program, *, seed: int = 0) -> None:
        self._program = trace if isinstance(trace, Program) else prepare(trace)
        self._seed = seed
        self._contents: dict[Hashable, Content] = {}
        self._facts: dict[Hashable, Facts] = {}

    def estimate(self, configs: Sequence[AcceleratorConfig]) -> Estimates:
        """Costs on each of `configs`; fastest where many share number formats, or those and the top-k engine.

        Raises
        ------
        InputError
            a memory model other than `ideal`, a descriptor that does not fit a machine, or an unknown technology.
        """
        alike: dict[Hashable, dict[Hashable, list[int]]] = {}
        for place, config in enumerate(configs):
            refuse(config)
            content, facts_alike = content_name(self._program, config), facts_name(self._program, config)
            alike.setdefault(content, {}).setdefault(facts_alike, []).append(place)
        count = len(configs)
        cycles, dram_bytes, rows, twice = (np.zeros(count, np.int64) for _ in range(4))
        energy, area = np.zeros(count), np.zeros(count)
        for name, where in (item for same_content in alike.values() for item in same_content.items()):
            members = [configs[place] for place in where]
            facts = self._facts_of(name, members[0])
            found = _attention_cycles(facts, members)
            rows[where], twice[where] = facts.content.query_rows, facts.content.lsb_rows
            for place, config, attention in zip(where, members, found.tolist(), strict=True):
                others = _Others(facts, config)
                written = facts.output_bytes(config)
                cycles[place] = attention + others.cycles
                dram_bytes[place] = facts.content.read_bytes + written + others.dram_bytes
                energy[place] = _energy_pj(facts.actions(config, written), others, config, int(cycles[place]))
                area[place] = math.fsum(area_um2(config).values())
        latency = np.array(
            [config.microseconds(taken) for config, taken in zip(configs, cycles.tolist(), strict=True)], np.float64
        )
        return Estimates(cycles, latency, dram_bytes, energy, area, rows, twice)

    def _facts_of(self, name: Hashable, config: AcceleratorConfig) -> Facts:
        def found() -> Facts:
            content = _remembered(
                self._contents,
                content_name(self._program, config),
                _REMEMBERED_CONTENTS,
                lambda: content_of(self._program, config),
            )
            return facts_of(content, config, self._seed)

        return _remembered(self._facts, name, _REMEMBERED_FACTS, found)


def _remembered(known: dict[Hashable, T], name: Hashable, limit: int, find: Callable[[], T]) -> T:
    """`known[name]`, found where it is missing; the `limit` that were last asked for stay."""
    found = known.pop(name) if name in known else find()
    while len(known) >= limit:
        known.pop(next(iter(known)))
    known[name] = found
    return found


def estimate(trace: Trace | Program, configs: Sequence[AcceleratorConfig], *, seed: int = 0) -> Estimates:
    """`ClosedForm(trace, seed=seed).estimate(configs)`."""
    return ClosedForm(trace, seed=seed).estimate(configs)


def _attention_cycles(facts: Facts, configs: list[AcceleratorConfig]) -> Int64:
    """Cycles of all attention descriptors on each machine."""
    if not facts.repeats.size:
        return np.zeros(len(configs), np.int64)
    latencies = [attention_latencies(config) for config in configs]
    columns = np.array(latencies, np.int64).T
    fields = dict(zip(latencies[0]._fields, columns, strict=True))
    memory = [(config.memory.bytes_per_cycle, config.memory.latency_cycles) for config in configs]
    fields["bytes_per_cycle"], fields["latency_cycles"] = np.array(memory, np.int64).T
    machines = Machines(**{name: np.ascontiguousarray(fields[name]) for name in Machines._fields})
    widths, which = np.unique(facts.head_dims, return_inverse=True)
    product, weighted = (
        np.array(
            [
                [array.interval_cycles(config.softmax.lanes, width) for width in widths.tolist()]
                for config, array in pairs
            ],
            np.int64,
        )[:, which]
        for pairs in (
            [(config, config.dot_product) for config in configs],
            [(config, config.weighted_sum) for config in configs],
        )
    )
    lengths, length = np.unique(facts.keys, return_inverse=True)
    banks = np.array([[operand_banks(config, keys) for keys in lengths.tolist()] for config in configs], np.int64)[
        :, length
    ]
    return descriptor_cycles(machines, product, weighted, banks, facts.descriptors, facts.repeats)


class _Others:
    """Operations outside attention on one machine: cycles, bytes and actions. They are closed forms in the engine too."""

    def __init__(self, facts: Facts, config: AcceleratorConfig) -> None:
        self.cycles = 0
        self.dram_bytes = 0
        self.actions: Counter[Key] = Counter()
        for single in (*facts.singles, *(facts.host if config.fully_connected else ())):
            with at_operation(single.index, single.op):
                self._add(single, config)

    def _add(self, single: Single, config: AcceleratorConfig) -> None:
        if not isinstance(single.op, TopK):
            self._book(single_cost(single.op, config), single.count)
            return
        # All selections are in one of them; the others load and filter.
        self._book(single_cost(single.op, config, single.selection_cycles), 1)
        if single.count > 1:
            self._book(single_cost(single.op, config), single.count - 1)

    def _book(self, cost: Cost, count: int) -> None:
        self.cycles += count * cost.cycles
        self.dram_bytes += count * sum(cost.traffic.values())
        for actions in cost.actions:
            for key, number in actions.items():
                self.actions[key] += count * number


def _energy_pj(attention: Mapping[Key, int], others: _Others, config: AcceleratorConfig, cycles: int) -> float:
    energies = action_energies_pj(config)
    total = math.fsum(energies[key] * count for key, count in attention.items())
    total += math.fsum(energies[key] * count for key, count in others.actions.items())
    leak = math.fsum(energies[component, Action.LEAK_CYCLE] for component in memory_bits(config))
    return total + cycles * leak
