"""The DRAM kernel equals the clock-by-clock reference: cycles, command streams, standby cycles, livelock and all."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.dram_strategies import memories, request_traces
from topsieve_sim.dram import load_dram_config, simulate_requests
from topsieve_sim.dram.reference import ReferenceChannel, _Request, reference_requests

NAMES = {0: "read", 1: "read", 2: "write", 3: "write", 4: "activate", 5: "precharge", 7: "refresh"}


def assert_equal_to_reference(config, addresses, is_write, arrival_cycles) -> None:
    result = simulate_requests(config, addresses, is_write, arrival_cycles, record_commands=True)
    expected = reference_requests(config, addresses, is_write, arrival_cycles)
    np.testing.assert_array_equal(result.accept_cycles, expected.accept_cycles)
    np.testing.assert_array_equal(result.complete_cycles, expected.complete_cycles)
    assert result.cycles == expected.cycles
    assert result.counters.active_cycles == expected.active_cycles
    stream = result.commands
    bank = stream.rank * config.organization.bank_groups + np.maximum(stream.bank_group, 0)
    bank = bank * config.organization.banks_per_group + np.maximum(stream.bank, 0)
    for channel, commands in enumerate(expected.commands):
        here = stream.channel == channel
        ours = zip(stream.cycle[here].tolist(), stream.kind[here].tolist(), bank[here].tolist(), strict=True)
        assert [(cycle, NAMES[kind], index) for cycle, kind, index in ours] == [
            (command.cycle, command.name, command.bank) for command in commands
        ]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_kernel_equals_reference(data) -> None:
    config = data.draw(memories())
    assert_equal_to_reference(config, *data.draw(request_traces(config)))


@pytest.mark.full
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_kernel_equals_reference_on_many_traces(data) -> None:
    config = data.draw(memories())
    assert_equal_to_reference(config, *data.draw(request_traces(config, most=400)))


def duplicate_trace(requests: int) -> tuple[np.ndarray, np.ndarray]:
    """Half reads, half writes over 64 lines: the traffic on which DRAMsim3 stops making progress."""
    random = np.random.default_rng(3)
    return random.integers(0, 64, requests) * 64, random.random(requests) < 0.5


class Original(ReferenceChannel):
    """DRAMsim3 as it is: a write that waits for an unscheduled read never lets reads go first."""

    def _move_transaction(self) -> None:
        self.yield_to = None
        super()._move_transaction()
        self.yield_to = None


def test_the_traffic_that_livelocks_the_original_completes() -> None:
    config = load_dram_config("ddr4-3200")
    addresses, is_write = duplicate_trace(4000)

    original = Original(config)
    original.fifo.extend(
        _Request(number, int(address) // 64, 0, 0, bool(write), 0)
        for number, (address, write) in enumerate(zip(addresses, is_write, strict=True))
    )
    # 64 lines of one row: all go to bank 0, row 0, as the mapping of the preset says.
    while original.cycle < 20_000:
        original.tick()
    served = len(original.accept)
    while original.cycle < 40_000:
        original.tick()
    assert original.fifo, "the original should still hold requests"
    assert len(original.accept) == served, "the original should make no progress"

    result = simulate_requests(config, addresses, is_write)
    assert result.counters.escaped_livelocks > 0
    assert (result.accept_cycles >= 0).all()
    assert (result.complete_cycles > result.accept_cycles).all()
    assert result.cycles < 40_000
    assert_equal_to_reference(config, addresses, is_write, np.zeros(addresses.size, np.int64))


def test_a_run_without_livelock_is_untouched_by_its_cure() -> None:
    config = load_dram_config("ddr4-3200")
    random = np.random.default_rng(9)
    addresses, is_write = random.integers(0, 1 << 20, 2000) * 64, random.random(2000) < 0.3
    original = Original(config)
    result = simulate_requests(config, addresses, is_write)
    assert result.counters.escaped_livelocks == 0
    rows = (addresses >> 18) & 0xFFFF
    banks = ((addresses >> 17) & 1) * 16 + ((addresses >> 13) & 3) * 4 + ((addresses >> 15) & 3)
    original.fifo.extend(
        _Request(i, int(addresses[i]) // 64, int(banks[i]), int(rows[i]), bool(is_write[i]), 0) for i in range(2000)
    )
    while original.busy:
        original.tick()
    assert [original.complete[i] for i in range(2000)] == result.complete_cycles.tolist()
