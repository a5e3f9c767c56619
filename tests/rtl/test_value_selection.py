# amaranth: UnusedElaboratable=no
"""Local value selection: RTL against golden models, timing function and the clock-by-clock reference."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import Out
from amaranth.sim import Simulator

from rtl.harness import engine_or_skip
from topsieve_rtl.attention import ValueSelection
from topsieve_rtl.attention.expander import expand
from topsieve_rtl.attention.layouts import FinishedRow
from topsieve_rtl.cosim import Case, Design, Engine, Sink, Source, first_divergence, run
from topsieve_rtl.formal import combinational_paths
from topsieve_rtl.stream import Fifo
from topsieve_rtl.units import find_unit
from topsieve_rtl.units.value_selection import row_times, rows_of
from topsieve_rtl.verify import verify
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.golden.attention_latency import beats
from topsieve_sim.stepped.selection import Selection

UNIT = find_unit("value_selection")
TINY = load_config("tiny")
# Lanes against parallelism: engine wider, as wide, narrower; lanes that are no power of two.
WIDTHS = [(1, 1), (1, 4), (2, 1), (2, 8), (4, 4), (8, 2), (3, 1), (6, 2)]


def machine(lanes: int, parallelism: int, seed: int) -> AcceleratorConfig:
    """A machine of these widths; everything else that selection depends on is drawn."""
    draw = np.random.default_rng([lanes, parallelism, seed])
    fields = {
        "softmax.lanes": lanes,
        "topk.parallelism": parallelism,
        "topk.selector": draw.choice(["quick", "radix", "bitonic"]),
        "capacity": draw.integers(2, 41),
        "double_buffer": bool(draw.integers(2)),
        "formats.probability_bits": draw.integers(4, 13),
        "dot_product.multipliers": 4 * lanes,
        "weighted_sum.multipliers": 4 * lanes,
    }
    return load_config("tiny", [f"{field}={str(value).lower()}" for field, value in fields.items()])


def assert_equal(config: AcceleratorConfig, **arguments) -> None:
    result = verify(UNIT, config, **arguments)
    assert result.mismatches == 0, f"{config.model_dump_json()}\n{result.shown[0].divergence}"


@pytest.mark.parametrize(("lanes", "parallelism"), WIDTHS)
def test_drawn_machines_equal_golden_and_timing(lanes, parallelism):
    assert_equal(machine(lanes, parallelism, 0), cases=4, engine=Engine.PYTHON)


@pytest.mark.full
@pytest.mark.parametrize(("lanes", "parallelism"), WIDTHS)
def test_many_drawn_machines_equal_golden_and_timing(lanes, parallelism):
    for seed in range(1, 9):
        assert_equal(machine(lanes, parallelism, seed), cases=20, engine=Engine.PYTHON, seed=seed)


@pytest.mark.full
@pytest.mark.parametrize(("preset", "cases"), [("tiny", 1000), ("ecp5", 60)])
def test_many_cases_of_a_preset(preset, cases):
    assert_equal(load_config(preset), cases=cases, engine=engine_or_skip(Engine.CXXRTL))


@pytest.mark.parametrize("engine", [Engine.ICARUS, pytest.param(Engine.VERILATOR, marks=pytest.mark.full)])
def test_the_shipped_verilog_equals_golden_and_timing(engine):
    assert_equal(TINY, cases=20, engine=engine_or_skip(engine))


@pytest.mark.parametrize(("lanes", "parallelism"), [(2, 4), (4, 2), (3, 1)])
def test_no_port_reaches_another(lanes, parallelism):
    assert combinational_paths(ValueSelection(machine(lanes, parallelism, 0))) == []


def test_the_row_number_has_bits():
    with pytest.raises(ValueError, match="row_bits must be at least 1, got 0"):
        ValueSelection(TINY, row_bits=0)


class WatchedSelection(wiring.Component):
    """The unit with `finished` as a stream, so that its cycles are recorded."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.selection = ValueSelection(config)
        members = dict(self.selection.signature.members)
        del members["finished"], members["finished_row"]
        super().__init__(members | {"finishes": Out(stream.Signature(FinishedRow(config)))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.selection = selection = self.selection
        m.submodules.fifo = fifo = Fifo(FinishedRow(self.config), 64)
        wiring.connect(m, wiring.flipped(self.i), selection.i)
        wiring.connect(m, selection.o, wiring.flipped(self.o))
        wiring.connect(m, selection.positions, wiring.flipped(self.positions))
        wiring.connect(m, fifo.o, wiring.flipped(self.finishes))
        m.d.comb += [
            selection.kept.eq(self.kept),
            selection.gather.eq(self.gather),
            fifo.i.valid.eq(selection.finished),
            fifo.i.payload.eq(selection.finished_row),
        ]
        return m


def run_reference(config: AcceleratorConfig, case: Case) -> tuple[dict[str, list[int]], list[tuple[int, int]]]:
    """Cycles of every beat of the clock-by-clock model, and (cycle, row) of each row that it finished."""
    source, kept, gather = case.sources["i"], case.constants["kept"], case.constants["gather"]
    rows = list(rows_of(source.beats, kept))
    lanes = config.softmax.lanes
    beat_counts = [len(row.survivors) if gather else len(row.probability) for row in rows]
    unit = Selection(
        config,
        [row.probability.tolist() for row in rows],
        kept,
        lambda row: beats(beat_counts[row], lanes),
        (lambda row: rows[row].survivors.tolist()) if gather else None,
    )
    names = [
        (row.number, False, n, n == beats(len(row.probability), lanes) - 1)
        for row in rows
        for n in range(beats(len(row.probability), lanes))
    ]
    cycles: dict[str, list[int]] = {"i": [], "o": [], "positions": []}
    finished: list[tuple[int, int]] = []
    cycle = 0
    while any(len(cycles[port]) < case.sinks[port].expected for port in ("o", "positions")) or len(cycles["i"]) < len(
        names
    ):
        following = len(cycles["i"])
        ready = {
            port: cycle >= len(sink.ready_pattern) or sink.ready_pattern[cycle] for port, sink in case.sinks.items()
        }
        crosses = {
            "i": following < len(names) and cycle >= source.arrival_cycles[following] and unit.accepts(),
            "o": unit.offer() is not None and ready["o"],
            "positions": unit.offer_position() is not None and ready["positions"],
        }
        known = set(unit.finished_rows)
        unit.tick(names[following] if crosses["i"] else None, crosses["o"], crosses["positions"])
        finished += [(cycle, row) for row in unit.finished_rows - known]
        for port, crossed in crosses.items():
            cycles[port] += [cycle] * crossed
        cycle += 1
    return cycles, finished


@pytest.mark.parametrize(("lanes", "parallelism"), [(2, 4), (4, 4), (4, 1), (3, 1)])
def test_every_cycle_equals_the_stepped_model(lanes, parallelism):
    config = machine(lanes, parallelism, 3)
    cases = [UNIT.draw(config, np.random.default_rng([31, n])) for n in range(5)]
    watched = [
        Case(
            case.sources,
            {**case.sinks, "finishes": Sink(len(list(rows_of(case.sources["i"].beats, 1))))},
            case.constants,
        )
        for case in cases
    ]
    for case, log in zip(cases, run(Design(WatchedSelection(config), "watched"), watched), strict=True):
        expected, finished = run_reference(config, case)
        for port, cycles in expected.items():
            assert log.channels[port].cycles == cycles, port
        # The FIFO shows the strobe a cycle later.
        rows = list(rows_of(case.sources["i"].beats, case.constants["kept"]))
        seen = log.channels["finishes"]
        assert [(cycle - 1, row) for cycle, (row, _) in zip(seen.cycles, seen.beats, strict=True)] == finished
        assert [survivors for _, survivors in seen.beats] == [row.survivors.size for row in rows]
        assert [cycle for cycle, _ in finished] == (row_times(config, case, rows)[3] - 1).tolist()


@pytest.mark.parametrize("change", ["double_buffer=false", "topk.seed=17", "topk.selector=radix"])
def test_the_rtl_of_another_machine_is_caught(change):
    """Same ports, other cycles."""

    class Mixed(type(UNIT)):
        def component(self, config):
            return super().component(load_config("tiny", [change]))

    assert verify(Mixed(), TINY, cases=12, engine=Engine.PYTHON).mismatches > 0


def selection_case(config: AcceleratorConfig, rows: list[list[int]], kept: int, gather: int) -> Case:
    """Rows without a pause into sinks that are always ready."""
    lanes = config.softmax.lanes
    taken = [
        (tuple(part + [0] * (lanes - len(part))), len(part), int(start + lanes >= len(row)), number)
        for number, row in enumerate(rows)
        for start in range(0, len(row), lanes)
        for part in [row[start : start + lanes]]
    ]
    kept_rows = list(rows_of(taken, kept))
    sinks = {
        "o": Sink(sum(len(list(row.beats(lanes, bool(gather)))) for row in kept_rows)),
        "positions": Sink(sum(row.survivors.size for row in kept_rows) * gather),
    }
    return Case({"i": Source(taken, [0] * len(taken))}, sinks, {"kept": kept, "gather": gather})


@pytest.mark.parametrize("gather", [0, 1])
@pytest.mark.parametrize(("lanes", "parallelism"), [(2, 4), (4, 2)])
def test_every_number_of_survivors(lanes, parallelism, gather):
    """Survivors at the front, at the end and spread over the row; all equal; kept from one to more than there are."""
    config = machine(lanes, parallelism, 5)
    top, longest = (1 << config.formats.probability_bits) - 1, min(config.capacity, 11)
    shapes = [
        [n % (top + 1) for n in range(longest)],
        [top - n for n in range(longest)],
        [top * (n % 3 == 0) for n in range(longest)],
        [1] * longest,
        [top],
    ]
    design = UNIT.design(config)
    cases = [selection_case(config, shapes, kept, gather) for kept in range(1, min(longest + 2, config.capacity) + 1)]
    for case, log in zip(cases, run(design, cases), strict=True):
        divergence = first_divergence(UNIT.expect(config, case), log.channels, ("models", "RTL"))
        assert divergence is None, f"\n{divergence}"


@pytest.mark.parametrize(("lanes", "parallelism"), [(4, 8), (4, 4), (8, 4)])
def test_whole_rows_leave_a_beat_a_cycle(lanes, parallelism):
    config = load_config(
        "tiny",
        [
            f"softmax.lanes={lanes}",
            f"topk.parallelism={parallelism}",
            f"dot_product.multipliers={4 * lanes}",
            f"weighted_sum.multipliers={4 * lanes}",
        ],
    )
    case = selection_case(config, [list(range(1, config.capacity + 1))], config.capacity, 0)
    (log,) = run(UNIT.design(config), [case])
    assert np.diff(log.channels["o"].cycles).tolist() == [1] * (config.capacity // lanes - 1)


@pytest.mark.parametrize("columns", [16, 32])
def test_wide_expanders_bring_every_element_to_its_lane(columns):
    """Random elements from random columns on, cyclically."""
    draw = np.random.default_rng(columns)
    m = Module()
    bits = columns.bit_length() - 1
    values, lanes = Signal(8 * columns), Signal(bits * columns)
    out = Signal(8 * columns)
    m.d.comb += out.eq(
        Cat(
            expand(
                m,
                [values.word_select(n, 8) for n in range(columns)],
                [lanes.word_select(n, bits) for n in range(columns)],
            )
        )
    )

    async def bench(context):
        for count in (1, 2, columns // 2, columns - 1, columns, *draw.integers(columns + 1, size=20).tolist()):
            first = int(draw.integers(columns))
            places = np.sort(draw.choice(columns, count, replace=False)).tolist()
            value_bits = lane_bits = wanted = 0
            for n, place in enumerate(places):
                value, column = int(draw.integers(1, 256)), (first + n) % columns
                value_bits |= value << 8 * column
                lane_bits |= place << bits * column
                wanted |= value << 8 * place
            context.set(values, value_bits)
            context.set(lanes, lane_bits)
            assert context.get(out) == wanted

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
