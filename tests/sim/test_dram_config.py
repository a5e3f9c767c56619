"""Memory configurations: presets carry sources, addresses go to and fro, wrong input is one line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve_sim.dram import (
    DramConfig,
    DramSimulator,
    Provenance,
    decode,
    dram_preset_names,
    encode,
    load_dram_config,
    simulate_requests,
    split_into_accesses,
)
from topsieve_sim.errors import InputError

PRESETS = pytest.mark.parametrize("preset", dram_preset_names())


def test_the_standards_are_there() -> None:
    for standard in (
        "hbm2",
        "hbm2-pseudo-channel",
        "hbm2e",
        "hbm3",
        "ddr4-2400",
        "ddr4-3200",
        "ddr5",
        "lpddr4",
        "lpddr5",
    ):
        assert any(name.startswith(standard) for name in dram_preset_names()), standard


@PRESETS
def test_every_number_of_a_preset_has_a_source(preset: str) -> None:
    config = load_dram_config(preset)
    assert config.name == preset
    for section in ("organization", "timing", "controller", "currents", "per_access_energy"):
        part = getattr(config, section)
        for field in type(part).model_fields if part is not None else ():
            assert len(config.source_of(f"{section}.{field}")) > 8
    assert config.source_of("clock_ns")
    if config.provenance is Provenance.JEDEC_CLASS:
        assert any("JEDEC-class" in source for source in config.sources.values())
    else:
        assert not any("JEDEC-class" in source for source in config.sources.values())


@PRESETS
def test_timing_is_consistent(preset: str) -> None:
    timing = load_dram_config(preset).timing
    assert timing.tRRD_S <= timing.tRRD_L <= timing.tFAW
    assert timing.tCCD_S <= timing.tCCD_L
    assert timing.tWTR_S <= timing.tWTR_L
    assert timing.tRFC < timing.tREFI
    assert timing.tRAS >= timing.tRCDRD


@pytest.mark.parametrize(
    ("preset", "gigabytes_per_second"),
    [("hbm2", 256), ("hbm2-pseudo-channel", 256), ("hbm2e-3600", 460.8), ("hbm3-6400", 819.2), ("ddr5-3200", 25.6)],
)
def test_peak_bandwidth(preset: str, gigabytes_per_second: float) -> None:
    # A clock period is written with four digits: 1e-3 covers its rounding.
    peak = load_dram_config(preset).peak_bytes_per_second
    assert peak == pytest.approx(gigabytes_per_second * 1e9, rel=1e-3)


@PRESETS
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_addresses_decode_and_encode(preset: str, seed: int) -> None:
    config = load_dram_config(preset)
    size = config.organization.access_bytes
    lines = np.random.default_rng(seed).integers(0, config.organization.capacity_bytes // size, 50)
    location = decode(config, lines * size)
    assert (location.row < config.organization.rows).all()
    assert (location.column < config.organization.accesses_per_row).all()
    np.testing.assert_array_equal(encode(config, location), lines * size)
    # Bytes inside an access go where its first byte goes.
    np.testing.assert_array_equal(encode(config, decode(config, lines * size + size - 1)), lines * size)


@settings(max_examples=50)
@given(starts=st.lists(st.integers(0, 5000), max_size=20), bytes_each=st.integers(1, 400))
def test_pieces_are_cut_into_the_accesses_that_hold_them(starts: list[int], bytes_each: int) -> None:
    config = load_dram_config("hbm2")
    addresses, owner = split_into_accesses(config, np.array(starts, np.int64), bytes_each)
    expected = [
        (line * 64, piece)
        for piece, start in enumerate(starts)
        for line in range(start // 64, (start + bytes_each - 1) // 64 + 1)
    ]
    assert list(zip(addresses.tolist(), owner.tolist(), strict=True)) == expected


def test_configuration_round_trip() -> None:
    config = load_dram_config("ddr4-2400", ["timing.tRFC=500"])
    assert config.timing.tRFC == 500
    assert DramConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["timing.tRTP_L=5"], ["timing.tRTP_L", "unknown field", "tRTP"]),
        (["timing.tFAW=0"], ["timing.tFAW", "got 0", ">= 1"]),
        (["organization.rows=1000"], ["organization.rows", "power of two", "1000"]),
        (["organization.banks_per_group=64", "organization.bank_groups=16"], ["banks per channel", "at most 64"]),
        (["address_mapping=[row, bank, column]"], ["address_mapping", "bank_group", "channel"]),
        (["address_mapping=[row, row, bank_group, bank, channel, column]"], ["address_mapping", "once"]),
        (["controller.policy=fastest"], ["controller.policy", "fastest", "dramsim3"]),
        (
            [
                "organization.pseudo_channels=2",
                "address_mapping=[row, bank_group, bank, pseudo_channel, channel, column]",
            ],
            ["pseudo_channels", "dramsim3"],
        ),
        (["organization.ranks=2", "address_mapping=[row, rank, bank_group, bank, channel, column]"], ["dual_command"]),
        (["timing"], ["malformed override", "field.path=value"]),
        (["sources={timing: somewhere}"], ["sources", "clock_ns"]),
    ],
)
def test_wrong_configuration_is_one_line(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_dram_config("hbm2", overrides)
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line, line


def test_unknown_preset_and_bad_files(tmp_path) -> None:
    with pytest.raises(InputError, match=r"unknown memory.*hbm2"):
        load_dram_config("hbm9")
    with pytest.raises(InputError, match="cannot read"):
        load_dram_config(tmp_path / "missing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [", encoding="utf-8")
    with pytest.raises(InputError, match=r"not valid YAML"):
        load_dram_config(broken)
    broken.write_text("3", encoding="utf-8")
    with pytest.raises(InputError, match="mapping of fields"):
        load_dram_config(broken)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([-1],), ["outside the memory", "-1"]),
        (([1 << 40],), ["outside the memory", "addresses[0]"]),
        (([0.5],), ["addresses", "integer"]),
        (([[0]],), ["addresses", "one-dimensional"]),
        (([0, 64], [True]), ["is_write", "one value per address"]),
        (([0, 64], False, [0, -1]), ["arrival_cycles", "negative"]),
        (([0], False, [0.5]), ["arrival_cycles", "integers"]),
    ],
)
def test_wrong_requests_are_one_line(arguments, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        simulate_requests(load_dram_config("hbm2"), *arguments)
    for word in words:
        assert word in str(caught.value), caught.value


def test_wrong_use_of_the_simulator() -> None:
    config = load_dram_config("hbm2")
    with pytest.raises(InputError, match="mode"):
        simulate_requests(config, [0], mode="lifo")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="record_commands"):
        DramSimulator(config).command_stream()
    simulator = DramSimulator(config)
    simulator.submit([0], arrival_cycles=100)
    with pytest.raises(InputError, match="still wait"):
        simulator.submit_in_order([64])


def test_refreshes_must_leave_time_to_use_a_row():
    """Two ranks that refresh most of the time serve nobody: the traffic would never end."""
    with pytest.raises(InputError, match=r"timing\.tREFI must be at least .* = 1416"):
        load_dram_config("ddr4-3200", ["organization.ranks=2", "timing.tREFI=651"])
    assert load_dram_config("ddr4-3200", ["organization.ranks=2", "timing.tREFI=1416"]).timing.tREFI == 1416
