# amaranth: UnusedElaboratable=no
"""The attention core behind real fetchers: every bit equal to the golden model, every event to the timing function."""

from __future__ import annotations

import numpy as np
import pytest

from rtl.harness.core_bench import CoreLog, CoreRun, Stalls
from rtl.harness.core_cases import CoreCase, Image, draw_core_case, draw_core_machine
from topsieve_rtl.attention.core import AttentionCore
from topsieve_rtl.formal import combinational_paths
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.golden.attention import AttentionOperands, AttentionResult
from topsieve_sim.golden.numbers import ScoreFactor
from topsieve_sim.timing import attention_kernel as kernel
from topsieve_sim.timing.accounting import BUSY, DONE, DOT_PRODUCT, INPUT, MEMORY, UNITS, WEIGHTED_SUM
from topsieve_sim.timing.attention import group_ports, run_group

TINY = load_config("tiny")


def assert_bits(config: AcceleratorConfig, case: CoreCase, golden: AttentionResult, log: CoreLog) -> None:
    """Outputs, rows computed twice and tapped probabilities."""
    wide = np.zeros((case.heads, case.queries, config.max_head_dim), np.int64)
    wide[..., : case.head_dim] = golden.output
    rows = {(head, query): wide[head, query].tolist() for head in range(case.heads) for query in range(case.queries)}
    assert log.outputs == rows
    assert log.repeated == golden.lsb_rows.sum()
    assert log.tapped[: case.keys].tolist() == golden.token_importance.tolist()
    assert not log.tapped[case.keys :].any()


def assert_cycles(
    config: AcceleratorConfig, case: CoreCase, golden: AttentionResult, log: CoreLog, stalls: Stalls
) -> None:
    """Every event of every started row, every command and every burst."""
    group = case.group(config, Image(config, case), golden)
    ports = group_ports(config, group, stalls.operands, stalls.queries)
    times, events = run_group(config, group, *ports, output_ready=stalls.output)
    named = [(*divmod(int(line[kernel.ROW]), case.queries), int(line[kernel.SECOND_PASS])) for line in events]
    assert log.started == named
    assert log.commands == ports[0].picked[: len(log.commands)].tolist()
    assert log.query_commands == events[:, kernel.PICK].tolist()
    for line, row in zip(events, named, strict=True):
        for column, name, place in (
            (kernel.FIRST_PRODUCT, "product", 0),
            (kernel.LAST_PRODUCT, "product", -1),
            (kernel.FILLED, "filled", -1),
            (kernel.DECIDED, "decided", 0),
            (kernel.FIRST_PROBABILITY, "probability", 0),
            (kernel.LAST_PROBABILITY, "probability", -1),
            (kernel.LAST_WEIGHTED, "weighted", -1),
            (kernel.LEFT, "left", 0),
        ):
            cycles = log.events[name].get(row, [-1])
            assert (row, name, cycles[place]) == (row, name, line[column])
    for port, bursts in zip(ports, log.bursts, strict=True):
        count = len(bursts)
        plan = port.plan
        expected = np.stack([port.state.address, plan.burst_address, plan.burst_words])[:, :count].T
        assert [list(burst) for burst in bursts] == expected.tolist()
    assert log.cycles == times.cycles[0]
    # In the counters a unit that has done its work waits for input; the memory is seen at its port.
    causes = times.unit_cycles[0].copy()
    causes[:, INPUT] += causes[:, DONE]
    causes[:, DONE] = 0
    units = np.arange(UNITS) != MEMORY
    assert log.activity[units].tolist() == causes[units].tolist()


def play(config: AcceleratorConfig, cases: list[CoreCase], stalls: list[Stalls]) -> list[CoreLog]:
    """Run and compare; the logs."""
    logs = CoreRun(config).run(cases, stalls)
    for case, pattern, log in zip(cases, stalls, logs, strict=True):
        golden = case.golden(config)
        assert_bits(config, case, golden, log)
        assert_cycles(config, case, golden, log, pattern)
    return logs


def drawn(seed: int) -> None:
    """Three jobs, one after the other, on a drawn machine; the first without stalls."""
    config = draw_core_machine(seed)
    generator = np.random.default_rng(seed)
    cases = [draw_core_case(config, generator) for _ in range(3)]
    play(config, cases, [Stalls(), Stalls.drawn(seed), Stalls.drawn(seed + 1)])


@pytest.mark.parametrize("seed", [2, 8, 10, 16])
def test_drawn_machines_equal_golden_and_timing(seed):
    drawn(seed)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(100, 200))
def test_many_drawn_machines_equal_golden_and_timing(seed):
    drawn(seed)


def selects(case: CoreCase) -> bool:
    return 0 < case.kept < case.keys


def decodes(case: CoreCase) -> bool:
    return case.queries * case.heads == case.kv_heads


# Each mode of the machine: what a case and its golden result must be like.
MODES = {
    "dense": lambda case, golden: not (case.causal or case.progressive or case.live_tokens) and case.queries > 2,
    "one key": lambda case, golden: case.keys == 1,
    "a causal row with holes": lambda case, golden: case.causal and case.queries > 1 and case.tokens[-1] >= case.keys,
    "queries of live tokens": lambda case, golden: case.live_queries and case.tokens[-1] >= case.keys > 2,
    "grouped decoding": lambda case, golden: case.queries == 1 and case.heads > case.kv_heads > 1,
    "all rows computed twice": lambda case, golden: golden.lsb_rows.sum() > 3 and golden.lsb_rows.all(),
    "some rows computed twice": lambda case, golden: 3 < golden.lsb_rows.sum() < golden.lsb_rows.size,
    "survivors' values alone": lambda case, golden: selects(case) and decodes(case) and case.kv_heads > 2,
    "survivors and LSB planes": lambda case, golden: selects(case) and decodes(case) and golden.lsb_rows.sum() > 1,
    "survivors of resident values": lambda case, golden: selects(case) and not decodes(case),
}


def test_every_mode_on_one_machine():
    """One job after the other without a reset, so that nothing of a job may stay for the next."""
    generator = np.random.default_rng(5)
    cases = []
    for wanted in MODES.values():
        while True:
            case = draw_core_case(TINY, generator, work_cycles=120)
            if wanted(case, case.golden(TINY)):
                break
        cases.append(case)
    logs = play(TINY, cases, [Stalls.drawn(seed) if seed % 2 else Stalls() for seed in range(len(cases))])
    assert len(logs) == len(MODES)


def test_the_counters_show_busy_arrays_on_full_rows():
    """Two heads of full rows on ports that never stall and bring a row a cycle: both arrays work in 19 cycles of 20 or more."""
    memory = TINY.memory.model_dump() | {"beat_bytes": 16, "latency_cycles": 1}
    array = {"multipliers": TINY.max_head_dim, "lane_split": TINY.max_head_dim}
    fields = {"name": "wide", "memory": memory, "dot_product": array, "weighted_sum": array}
    config = AcceleratorConfig.model_validate(TINY.model_dump() | fields)
    generator = np.random.default_rng(7)
    formats, keys, heads = config.formats, config.capacity, 2

    def signed(bits: int, rows: int) -> np.ndarray:
        return generator.integers(-(1 << (bits - 1)), 1 << (bits - 1), (heads, rows, config.max_head_dim))

    operands = AttentionOperands(
        signed(formats.query_bits, keys),
        signed(formats.key_bits, keys),
        signed(formats.value_bits, keys),
        ScoreFactor(np.full(heads, 40_000), np.full(heads, 20)),
        None,
        np.ones(heads),
    )
    case = CoreCase(operands=operands, tokens=list(range(keys)), queries=keys, progressive=True)
    (log,) = play(config, [case], [Stalls()])
    busy = log.activity[[DOT_PRODUCT, WEIGHTED_SUM], BUSY]
    products = heads * keys * keys * config.max_head_dim
    assert busy.tolist() == [products // config.dot_product.multipliers, products // config.weighted_sum.multipliers]
    assert busy.min() >= 0.95 * log.cycles


def test_the_rtl_of_another_machine_is_caught():
    """One bank where the models have two: bits stay, cycles do not."""
    generator = np.random.default_rng(1)
    case = next(
        case
        for case in (draw_core_case(TINY, generator, 200) for _ in range(1000))
        if case.kv_heads > 2 and not case.kept
    )
    (log,) = CoreRun(TINY.model_copy(update={"double_buffer": False})).run([case], [Stalls()])
    golden = case.golden(TINY)
    assert_bits(TINY, case, golden, log)
    with pytest.raises(AssertionError):
        assert_cycles(TINY, case, golden, log, Stalls())


def test_no_port_reaches_another():
    assert combinational_paths(AttentionCore(TINY)) == []
