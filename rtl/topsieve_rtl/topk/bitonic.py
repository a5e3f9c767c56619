"""The bitonic merge sorter, as a selector: what quick-select and radix select are compared with."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import enum, memory

from topsieve_rtl.topk.networks import delayed, one_hot_select, population_count, registered
from topsieve_rtl.topk.selector import Selector
from topsieve_sim.golden.topk_latency import levels, popcount_ranks


class Phase(enum.Enum, shape=2):
    """What the sorter does."""

    DRAIN = 0
    SORT = 1
    MERGE = 2
    COUNT = 3


def exchange(values: Sequence[Value], pairs: Sequence[tuple[int, int]]) -> list[Value]:
    """The larger value of each pair (high, low) to `high`, the smaller to `low`."""
    result = list(values)
    for high, low in pairs:
        swap = values[high] < values[low]
        result[high] = Mux(swap, values[low], values[high])
        result[low] = Mux(swap, values[high], values[low])
    return result


def sorting_layers(lanes: int) -> list[list[tuple[int, int]]]:
    """Layers of the bitonic network that sorts `lanes` values in descending order."""
    layers = []
    for block in range(1, levels(lanes) + 1):
        for layer in range(block - 1, -1, -1):
            pairs = []
            for lane in range(lanes):
                partner = lane ^ (1 << layer)
                if lane < partner:
                    pairs.append((partner, lane) if lane >> block & 1 else (lane, partner))
            layers.append(pairs)
    return layers


def half_cleaner_layers(lanes: int) -> list[list[tuple[int, int]]]:
    """Layers that sort any rotation of a bitonic sequence in descending order."""
    return sorting_layers(lanes)[-levels(lanes) :] if lanes > 1 else []


class BitonicSelect(Selector):
    """Sorts rows with a bitonic network, merges runs at P elements a cycle, reads the k-th, counts what is greater.

    Lane by lane the merger compares the head of one run's bank with the head of the other run's opposite bank; the P
    winners are a rotated bitonic sequence, which the half-cleaner sorts. Each bank moves on by itself, so the feedback
    is a single comparison.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, bits = self.lanes, self.score_bits
        # A power of two, so that a bank that has run out reads some row rather than none.
        depth = max(2, 1 << (self.rows - 1).bit_length())
        numbers = range(self.capacity + 1)
        # Bounds of a pair may reach twice a run beyond the last row.
        place = range(4 * depth + 1)
        idle, phase, side = Signal(init=1), Signal(Phase), Signal()
        size, wanted, rows = Signal(numbers), Signal(numbers), Signal(place)
        row, run, tail = Signal(place), Signal(place), Signal(range(depth))
        left_end, right_end = Signal(place), Signal(place)
        left = [Signal(place, name=f"left_{lane}") for lane in range(lanes)]
        right = [Signal(place, name=f"right_{lane}") for lane in range(lanes)]
        kth = Signal(bits)
        lane_bits = levels(lanes)

        # Banks: a pass reads those of one side and writes those of the other.
        written, written_last = Signal(), Signal()
        to_write = [Signal(bits, name=f"to_write_{lane}") for lane in range(lanes)]
        left_heads, right_heads = [], []
        for lane in range(lanes):
            heads = []
            for half in range(2):
                bank = memory.Memory(shape=bits, depth=depth, init=[])
                m.submodules[f"bank_{half}_{lane}"] = bank
                writer = bank.write_port()
                ports = [bank.read_port(domain="comb"), bank.read_port(domain="comb")]
                m.d.comb += [
                    writer.addr.eq(tail),
                    writer.data.eq(to_write[lane]),
                    writer.en.eq(written & (side == half)),
                    ports[0].addr.eq(left[lane]),
                    ports[1].addr.eq(right[lane]),
                ]
                heads.append([port.data for port in ports])
            left_heads.append(Mux(side, heads[0][0], heads[1][0]))
            right_heads.append(Mux(side, heads[0][1], heads[1][1]))

        # Sort each row of the buffer.
        sorting = phase == Phase.SORT
        merging = phase == Phase.MERGE
        counting = phase == Phase.COUNT
        last_row = row + 1 == rows
        m.d.comb += [self.read.eq(sorting), self.address.eq(row)]
        begin = row << lane_bits
        live = registered(m, Cat(size > begin + lane for lane in range(lanes)), "live")
        values = [registered(m, self.row[lane] & live[lane].replicate(bits), f"row_{lane}") for lane in range(lanes)]
        for number, layer in enumerate(sorting_layers(lanes)):
            values = [
                registered(m, value, f"sort_{number}_{lane}") for lane, value in enumerate(exchange(values, layer))
            ]
        sort_cycles = 2 + len(sorting_layers(lanes))
        sorted_valid = delayed(m, sorting, sort_cycles, "sorted")
        sorted_last = delayed(m, sorting & last_row, sort_cycles, "sorted_last")

        # Merge two runs.
        winners = []
        for lane in range(lanes):
            opposite = lanes - 1 - lane
            left_valid, right_valid = left[lane] < left_end, right[opposite] < right_end
            takes_left = ~right_valid | (left_valid & (left_heads[lane] >= right_heads[opposite]))
            winner = Mux(takes_left, left_heads[lane], right_heads[opposite])
            winners.append(registered(m, winner, f"winner_{lane}"))
            with m.If(merging):
                with m.If(takes_left):
                    m.d.sync += left[lane].eq(left[lane] + 1)
                with m.Else():
                    m.d.sync += right[opposite].eq(right[opposite] + 1)
        merged: list[Value] = list(winners)
        for number, layer in enumerate(half_cleaner_layers(lanes)):
            merged = [
                registered(m, value, f"merge_{number}_{lane}") for lane, value in enumerate(exchange(merged, layer))
            ]
        merged_valid = delayed(m, merging, 1 + lane_bits, "merged")
        merged_last = delayed(m, merging & last_row, 1 + lane_bits, "merged_last")

        with m.If(sorting | merging):
            m.d.sync += row.eq(row + 1)
            with m.If(last_row):
                m.d.sync += phase.eq(Phase.DRAIN)
        with m.If(merging & (row + 1 == right_end)):
            self._open_pair(m, left, right, left_end, right_end, right_end, run, rows)

        # Write, and begin the next pass when all is written.
        m.d.comb += [
            written.eq(sorted_valid | merged_valid),
            written_last.eq(sorted_last | merged_last),
            *(
                target.eq(Mux(sorted_valid, from_sort, from_merge))
                for target, from_sort, from_merge in zip(to_write, values, merged, strict=True)
            ),
        ]
        with m.If(written):
            m.d.sync += tail.eq(tail + 1)
        next_run = Signal(place)
        m.d.comb += next_run.eq(Mux(merged_valid, run << 1, run))
        wanted_row = (wanted - 1) >> lane_bits
        wanted_lane = Cat((wanted - 1)[:lane_bits] == lane for lane in range(lanes))
        with m.If(written_last):
            m.d.sync += [tail.eq(0), row.eq(0), side.eq(~side), run.eq(next_run)]
            with m.If(next_run < rows):
                m.d.sync += phase.eq(Phase.MERGE)
                self._open_pair(m, left, right, left_end, right_end, 0, next_run, rows)
            with m.Else():
                m.d.sync += [phase.eq(Phase.COUNT), *(pointer.eq(wanted_row) for pointer in left)]

        # The first cycle of the count reads the k-th itself.
        reads_kth = row == 0
        with m.If(counting):
            m.d.sync += [row.eq(row + 1), *(pointer.eq(row) for pointer in left)]
            with m.If(reads_kth):
                m.d.sync += kth.eq(one_hot_select(wanted_lane, left_heads))
            with m.Elif(row == wanted_row + 1):
                m.d.sync += phase.eq(Phase.DRAIN)
        ranks = popcount_ranks(lanes)
        counted_row = [registered(m, head, f"counted_{lane}") for lane, head in enumerate(left_heads)]
        greater = registered(m, Cat(value > kth for value in counted_row), "greater")
        greater_count = population_count(m, greater, "greater")
        counted = delayed(m, counting & ~reads_kth, 2 + ranks, "counted")
        counted_last = delayed(m, counting & (row == wanted_row + 1), 2 + ranks, "counted_last")
        quota = Signal(numbers)
        with m.If(counted):
            m.d.sync += quota.eq(quota - greater_count)
            with m.If(counted_last):
                m.d.sync += self.result.valid.eq(1)

        # Command and result.
        command = self.command.payload
        m.d.comb += [
            self.command.ready.eq(idle),
            self.result.payload.kth.eq(kth),
            self.result.payload.quota.eq(quota),
        ]
        with m.If(self.command.valid & idle):
            m.d.sync += [
                idle.eq(0),
                size.eq(command.n),
                wanted.eq(command.k),
                quota.eq(command.k),
                rows.eq((command.n + lanes - 1) >> lane_bits),
                row.eq(0),
                run.eq(1),
            ]
            with m.If((command.k == 0) | (command.k >= command.n)):
                m.d.sync += [
                    self.result.valid.eq(1),
                    kth.eq(Mux(command.k == 0, (1 << bits) - 1, 0)),
                    quota.eq(Mux(command.k == 0, 0, command.n)),
                ]
            with m.Else():
                m.d.sync += phase.eq(Phase.SORT)
        with m.If(self.result.valid & self.result.ready):
            m.d.sync += [self.result.valid.eq(0), idle.eq(1)]
        return m

    @staticmethod
    def _open_pair(
        m: Module,
        left: Sequence[Signal],
        right: Sequence[Signal],
        left_end: Signal,
        right_end: Signal,
        start: Value | int,
        run: Value,
        rows: Value,
    ) -> None:
        """Point the banks at the two runs from row `start` on."""
        middle, end = start + run, start + (run << 1)
        m.d.sync += [
            *(pointer.eq(start) for pointer in left),
            *(pointer.eq(middle) for pointer in right),
            left_end.eq(Mux(middle < rows, middle, rows)),
            right_end.eq(Mux(end < rows, end, rows)),
        ]
