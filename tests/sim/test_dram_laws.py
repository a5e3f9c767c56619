"""Laws of the DRAM model: no timing rule is ever broken, nothing is lost, time can be cut anywhere."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.dram_strategies import memories, request_traces
from topsieve_sim.dram import (
    DramConfig,
    DramResult,
    DramSimulator,
    Policy,
    dram_preset_names,
    load_dram_config,
    simulate_requests,
)
from topsieve_sim.dram.address import field_positions
from topsieve_sim.dram.constraints import Constraints, dramsim3_constraints, ramulator_constraints

READ, READ_AUTO, WRITE, WRITE_AUTO, ACTIVATE, PRECHARGE, REFRESH = 0, 1, 2, 3, 4, 5, 7
POLICIES = pytest.mark.parametrize("policy", ["dramsim3", "ramulator"])
QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def table_of(config: DramConfig) -> Constraints:
    if config.controller.policy is Policy.RAMULATOR:
        return ramulator_constraints(config)
    return dramsim3_constraints(config)


def check_timing_rules(config: DramConfig, result: DramResult) -> None:
    """Replay the command stream against every rule, with no regard to how the kernel keeps them."""
    table, stream = table_of(config), result.commands
    assert stream is not None
    open_row: dict[tuple, int] = {}
    last: dict[tuple, dict[str, int]] = defaultdict(dict)
    activates: dict[tuple, list[int]] = defaultdict(list)
    columns: dict[tuple, list[tuple[int, str, int]]] = defaultdict(list)
    rows_of_bus: dict[int, int] = {}
    for i in range(stream.cycle.size):
        cycle, kind = int(stream.cycle[i]), int(stream.kind[i])
        unit = (int(stream.channel[i]), int(stream.pseudo_channel[i]), int(stream.rank[i]))
        bank = (*unit, int(stream.bank_group[i]), int(stream.bank[i]))
        past = last[bank]

        def apart(name: str, cycles: int, past: dict[str, int] = past, cycle: int = cycle) -> None:
            assert name not in past or cycle - past[name] >= cycles, (name, cycles, cycle, past)

        if kind in (ACTIVATE, PRECHARGE, REFRESH) and config.timing.activate_cycles == 2:
            assert cycle >= rows_of_bus.get(unit[0], 0)
        if kind == REFRESH:
            banks = [key for key in last if key[:3] == unit]
            for key in banks:
                assert key not in open_row
                assert "precharge" not in last[key] or cycle - last[key]["precharge"] >= table.precharge_refresh
                last[key]["refresh"] = cycle
            last[unit]["refresh"] = cycle
        elif kind == ACTIVATE:
            assert bank not in open_row
            apart("activate", table.activate_activate_same_bank)
            apart("precharge", table.precharge_activate)
            apart("refresh", table.refresh_activate)
            assert "refresh" not in last[unit] or cycle - last[unit]["refresh"] >= table.refresh_activate
            recent = activates[unit]
            assert len(recent) < 4 or cycle - recent[-4] >= table.four_activates
            for group in range(config.organization.bank_groups):
                other = last[(*unit, "group", group)].get("activate")
                same = group == bank[3]
                needed = table.activate_activate_same_group if same else table.activate_activate_other_group
                assert other is None or cycle - other >= needed
            recent.append(cycle)
            last[(*unit, "group", bank[3])]["activate"] = cycle
            past["activate"] = cycle
            rows_of_bus[unit[0]] = cycle + config.timing.activate_cycles
            open_row[bank] = int(stream.row[i])
        elif kind == PRECHARGE:
            assert bank in open_row
            apart("activate", table.activate_precharge)
            apart("read", table.read_precharge)
            apart("write", table.write_precharge)
            past["precharge"] = cycle
            del open_row[bank]
        else:
            reading = kind in (READ, READ_AUTO)
            name = "read" if reading else "write"
            assert open_row[bank] == int(stream.row[i])
            apart("activate", table.activate_read if reading else table.activate_write)
            for before, before_name, group in columns[unit][-8:]:
                same = group == bank[3]
                needed = {
                    ("read", "read"): table.read_read_same_group if same else table.read_read_other_group,
                    ("read", "write"): table.read_write_same_rank,
                    ("write", "read"): table.write_read_same_group if same else table.write_read_other_group,
                    ("write", "write"): table.write_write_same_group if same else table.write_write_other_group,
                }[before_name, name]
                assert cycle - before >= needed, (before_name, name, same)
            columns[unit].append((cycle, name, bank[3]))
            past[name] = cycle
            if kind in (READ_AUTO, WRITE_AUTO):
                past["precharge"] = cycle + (table.read_precharge if reading else table.write_precharge)
                del open_row[bank]


@POLICIES
@QUICK
@given(data=st.data())
def test_no_timing_rule_is_broken(policy: str, data) -> None:
    config = data.draw(memories(policy))
    trace = data.draw(request_traces(config, most=400))
    check_timing_rules(config, simulate_requests(config, *trace, record_commands=True))


@POLICIES
@pytest.mark.parametrize(
    "field",
    [
        "CL",
        "tRCDRD",
        "tRCDWR",
        "tRP",
        "tRAS",
        "tRRD_S",
        "tRRD_L",
        "tFAW",
        "tCCD_L",
        "tWTR_S",
        "tWTR_L",
        "tWR",
        "tRTP",
        "tRFC",
    ],
)
def test_a_broken_rule_is_noticed(policy: str, field: str) -> None:
    """The check above can fail: a memory two cycles too fast in one parameter does not pass for the right one."""
    right = load_dram_config("ddr4-3200", [f"controller.policy={policy}"])
    wrong = load_dram_config(
        "ddr4-3200", [f"controller.policy={policy}", f"timing.{field}={getattr(right.timing, field) - 2}"]
    )
    random = np.random.default_rng(0)
    addresses = np.concatenate((np.arange(1000), random.integers(0, 1 << 20, 2000))) * 64
    result = simulate_requests(wrong, addresses, random.random(3000) < 0.3, record_commands=True)
    with pytest.raises(AssertionError):
        check_timing_rules(right, result)


@pytest.mark.parametrize("preset", dram_preset_names())
def test_no_timing_rule_is_broken_on_any_preset(preset: str) -> None:
    config = load_dram_config(preset)
    random = np.random.default_rng(7)
    size, lines = config.organization.access_bytes, 4000
    span = config.organization.capacity_bytes // size
    addresses = np.concatenate((np.arange(lines), random.integers(0, span, lines))) * size
    is_write = random.random(addresses.size) < 0.25
    result = simulate_requests(config, addresses, is_write, record_commands=True)
    check_timing_rules(config, result)
    assert result.cycles > 0
    assert (result.latency_cycles > 0).all()


@POLICIES
@QUICK
@given(data=st.data())
def test_every_request_is_accepted_in_order_and_completed(policy: str, data) -> None:
    config = data.draw(memories(policy))
    addresses, is_write, arrival = data.draw(request_traces(config))
    result = simulate_requests(config, addresses, is_write, arrival)
    assert (result.accept_cycles >= arrival).all()
    assert (result.complete_cycles > result.accept_cycles).all()
    assert result.cycles == result.complete_cycles.max() + 1
    low, width = field_positions(config)["channel"]
    channel = (addresses >> low) & ((1 << width) - 1)
    for c in np.unique(channel):
        assert (np.diff(result.accept_cycles[channel == c]) > 0).all()
    counters = result.counters
    reads = int((~is_write).sum())
    assert counters.read_commands + counters.forwarded_reads + counters.merged_reads == reads
    buffered = int(is_write.sum()) - counters.absorbed_writes - counters.write_commands
    assert (
        0
        <= buffered
        <= config.organization.channels
        * (config.controller.write_buffer + config.organization.banks_per_channel * config.controller.bank_queue)
    )
    units = config.organization.channels * config.organization.pseudo_channels * config.organization.ranks
    assert counters.active_cycles + counters.idle_cycles == units * result.cycles


@POLICIES
@QUICK
@given(data=st.data())
def test_time_can_be_cut_anywhere(policy: str, data) -> None:
    """Closed loop in random steps, requests submitted in random portions: the same cycles as the trace at once."""
    config = data.draw(memories(policy))
    addresses, is_write, arrival = data.draw(request_traces(config))
    whole = simulate_requests(config, addresses, is_write, arrival)
    simulator = DramSimulator(config)
    seen: dict[int, int] = {}
    submitted = 0
    while len(seen) < addresses.size:
        step = data.draw(st.integers(1, 300))
        # Everything that arrives before the next stop must be there before time reaches it.
        due = int(np.searchsorted(arrival, simulator.cycle + step))
        until = max(due, min(addresses.size, submitted + data.draw(st.integers(0, 20))))
        if until > submitted:
            part = slice(submitted, until)
            simulator.submit(addresses[part], is_write[part], arrival[part])
            submitted = until
        simulator.advance(simulator.cycle + step)
        numbers, cycles = simulator.completions()
        assert (cycles < simulator.cycle).all()
        assert not set(numbers.tolist()) & set(seen)
        seen |= dict(zip(numbers.tolist(), cycles.tolist(), strict=True))
    np.testing.assert_array_equal([seen[i] for i in range(addresses.size)], whole.complete_cycles)
    np.testing.assert_array_equal(simulator.accept_cycles(), whole.accept_cycles)


@POLICIES
@QUICK
@given(data=st.data())
def test_channels_share_nothing(policy: str, data) -> None:
    config = data.draw(memories(policy))
    addresses, is_write, arrival = data.draw(request_traces(config))
    whole = simulate_requests(config, addresses, is_write, arrival)
    low, width = field_positions(config)["channel"]
    channel = (addresses >> low) & ((1 << width) - 1)
    here = channel == channel[0]
    alone = simulate_requests(config, addresses[here], is_write[here], arrival[here])
    np.testing.assert_array_equal(alone.complete_cycles, whole.complete_cycles[here])


@POLICIES
@QUICK
@given(data=st.data())
def test_one_queue_for_all_channels_accepts_one_request_per_cycle(policy: str, data) -> None:
    config = data.draw(memories(policy))
    addresses, is_write, arrival = data.draw(request_traces(config))
    result = simulate_requests(config, addresses, is_write, arrival, mode="inorder")
    assert (np.diff(result.accept_cycles) > 0).all()
    assert (result.accept_cycles >= arrival).all()
    # Seen from one channel, the accepted requests arrive when the queue lets them.
    replay = simulate_requests(config, addresses, is_write, result.accept_cycles)
    np.testing.assert_array_equal(replay.accept_cycles, result.accept_cycles)
    np.testing.assert_array_equal(replay.complete_cycles, result.complete_cycles)


def test_repeated_reads_of_one_line_merge_and_complete_together() -> None:
    result = simulate_requests(load_dram_config("hbm2"), np.zeros(5, np.int64))
    assert result.counters.read_commands == 1
    assert result.counters.merged_reads == 4
    assert len(set(result.complete_cycles.tolist())) == 1


def test_a_read_of_a_buffered_write_needs_no_access() -> None:
    result = simulate_requests(load_dram_config("hbm2"), [0, 0], [True, False])
    assert result.latency_cycles.tolist() == [2, 2]
    assert result.counters.forwarded_reads == 1
    assert result.counters.read_commands == 0


def test_first_read_latency_is_the_sum_of_its_parts() -> None:
    config = load_dram_config("hbm2")
    timing = config.timing
    result = simulate_requests(config, [0])
    expected = 2 + timing.tRCDRD + timing.CL + config.organization.burst_cycles
    assert result.latency_cycles.tolist() == [expected]


def test_empty_trace() -> None:
    result = simulate_requests(load_dram_config("hbm2"), np.zeros(0, np.int64))
    assert result.cycles == 0
    assert result.counters.active_cycles == result.counters.idle_cycles == 0
    assert result.bytes_per_second == 0.0
