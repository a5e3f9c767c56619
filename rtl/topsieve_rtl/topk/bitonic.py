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
    is a single comparison. Heads wait in registers, each with the pointer to what follows it: an asynchronous read and
    a comparison in one cycle would be the slowest path of the engine.
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
        # Set for the cycle that fetches the first heads of a pair of runs.
        opens = Signal()
        next_left, next_right = Signal(place), Signal(place)
        left_end, right_end = Signal(place), Signal(place)
        left = [Signal(place, name=f"left_{lane}") for lane in range(lanes)]
        right = [Signal(place, name=f"right_{lane}") for lane in range(lanes)]
        kth = Signal(bits)
        lane_bits = levels(lanes)

        # Banks: a pass reads those of one side and writes those of the other.
        written, written_last = Signal(), Signal()
        to_write = [Signal(bits, name=f"to_write_{lane}") for lane in range(lanes)]
        left_address = [Mux(opens, next_left, pointer) for pointer in left]
        right_address = [Mux(opens, next_right, pointer) for pointer in right]
        left_following, right_following = [], []
        for lane in range(lanes):
            following = []
            for half in range(2):
                bank = memory.Memory(shape=bits, depth=depth, init=[])
                m.submodules[f"bank_{half}_{lane}"] = bank
                writer = bank.write_port()
                ports = [bank.read_port(domain="comb"), bank.read_port(domain="comb")]
                m.d.comb += [
                    writer.addr.eq(tail),
                    writer.data.eq(to_write[lane]),
                    writer.en.eq(written & (side == half)),
                    ports[0].addr.eq(left_address[lane]),
                    ports[1].addr.eq(right_address[lane]),
                ]
                following.append([port.data for port in ports])
            left_following.append(Mux(side, following[0][0], following[1][0]))
            right_following.append(Mux(side, following[0][1], following[1][1]))
        left_heads = [Signal(bits, name=f"left_head_{lane}") for lane in range(lanes)]
        right_heads = [Signal(bits, name=f"right_head_{lane}") for lane in range(lanes)]
        left_valid = [Signal(name=f"left_valid_{lane}") for lane in range(lanes)]
        right_valid = [Signal(name=f"right_valid_{lane}") for lane in range(lanes)]

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

        # Merge two runs. The left run is shorter than `run` only where there is no right run, whose bank is then empty,
        # so the left end needs no bound.
        pair = run << 1
        with m.If(opens):
            m.d.sync += [
                phase.eq(Phase.MERGE),
                next_left.eq(next_left + pair),
                next_right.eq(next_right + pair),
                left_end.eq(next_right),
                right_end.eq(Mux(next_left + pair < rows, next_left + pair, rows)),
            ]
        winners = []
        for lane in range(lanes):
            opposite = lanes - 1 - lane
            takes_left = ~right_valid[opposite] | (left_valid[lane] & (left_heads[lane] >= right_heads[opposite]))
            winner = Mux(takes_left, left_heads[lane], right_heads[opposite])
            winners.append(registered(m, winner, f"winner_{lane}"))
            with m.If(opens | counting | takes_left):
                m.d.sync += [
                    left_heads[lane].eq(left_following[lane]),
                    left[lane].eq(left_address[lane] + 1),
                    left_valid[lane].eq(opens | (left[lane] < left_end)),
                ]
            with m.If(opens | ~takes_left):
                m.d.sync += [
                    right_heads[opposite].eq(right_following[opposite]),
                    right[opposite].eq(right_address[opposite] + 1),
                    right_valid[opposite].eq(Mux(opens, next_right < rows, right[opposite] < right_end)),
                ]
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
        # The next cycle merges the last row of a pair that another follows.
        m.d.sync += opens.eq(merging & (row + 2 < rows) & (((row + 2) & (pair - 1)) == 0))

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
                m.d.sync += [opens.eq(1), next_left.eq(0), next_right.eq(next_run)]
            with m.Else():
                m.d.sync += [phase.eq(Phase.COUNT), *(pointer.eq(wanted_row) for pointer in left)]

        # The first cycle of the count fetches the row of the k-th, the following ones all rows up to it.
        with m.If(counting):
            m.d.sync += row.eq(row + 1)
            with m.If(row == 0):
                m.d.sync += [pointer.eq(0) for pointer in left]
            with m.If(row == 1):
                m.d.sync += kth.eq(one_hot_select(wanted_lane, left_heads))
            with m.If(row == wanted_row + 1):
                m.d.sync += phase.eq(Phase.DRAIN)
        ranks = popcount_ranks(lanes)
        greater = registered(m, Cat(head > kth for head in left_heads), "greater")
        greater_count = population_count(m, greater, "greater")
        counted = delayed(m, counting & (row != 0), 2 + ranks, "counted")
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
