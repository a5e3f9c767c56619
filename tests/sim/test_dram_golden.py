"""The DRAM model answers every measured request in the measured cycle."""

import numpy as np
import pytest

from sim.dram_golden import (
    DRAMSIM3,
    RAMULATOR,
    command_streams,
    config_of,
    outputs,
    parameters,
    summary,
    trace_of,
    traces_of,
)
from topsieve_sim.dram.constraints import dramsim3_constraints, ramulator_constraints

RUNS = [(measured, name) for measured in (*DRAMSIM3, *RAMULATOR) for name in traces_of(measured)]
# Recordings end in a run whose energy the measurement itself calls meaningless: its currents were not rescaled.
WITHOUT_ENERGY = {"d3_hbm2pc"}


def test_every_measured_run_is_covered() -> None:
    assert set(RUNS) == set(summary())
    assert len(RUNS) == 398


@pytest.mark.parametrize("measured", [*DRAMSIM3, *RAMULATOR])
def test_accept_and_completion_of_every_request(measured: str) -> None:
    config = config_of(measured)
    for name in traces_of(measured):
        result = trace_of(measured, name).run(config)
        accept = outputs(measured)[f"{name}__accept"].astype(np.int64)
        latency = outputs(measured)[f"{name}__lat"].astype(np.int64)
        np.testing.assert_array_equal(result.accept_cycles, accept, err_msg=name)
        np.testing.assert_array_equal(result.latency_cycles, latency, err_msg=name)
        row = summary()[measured, name]
        counters = result.counters
        assert result.cycles == int(row["cycles"]), name
        assert counters.row_hits == int(row["row_hits"]), name
        assert counters.row_misses == int(row["row_misses"]), name
        assert counters.row_conflicts == int(row["row_conflicts"]), name
        assert counters.refreshes == int(row["refs"]), name
        if measured in DRAMSIM3:
            assert counters.read_commands == int(row["read_cmds"]), name
            assert counters.write_commands == int(row["write_cmds"]), name
            assert counters.activates == int(row["acts"]), name
            assert counters.precharges == int(row["pres"]), name
            assert counters.dual_commands == int(row["dual_cmds"]), name
            assert counters.active_cycles == int(row["active_cycles"]), name
            assert counters.idle_cycles == int(row["idle_cycles"]), name
            assert counters.escaped_livelocks == 0, name
            if measured not in WITHOUT_ENERGY:
                energy = result.energy.currents
                assert energy is not None
                # The table prints one decimal of a picojoule; 1e-4 leaves no room for a wrong event.
                assert energy.total_pj == pytest.approx(float(row["total_pJ"]), rel=1e-4), name
                assert energy.activate_pj == pytest.approx(float(row["act_pJ"]), rel=1e-4), name
                assert energy.refresh_pj == pytest.approx(float(row["ref_pJ"]), rel=1e-4), name


@pytest.mark.parametrize("run", sorted({key.rpartition("__")[0] for key in command_streams()}))
def test_command_stream(run: str) -> None:
    measured, _, name = run.partition("__")
    archive = command_streams()
    result = trace_of(measured, name).run(config_of(measured), int(archive[f"{run}__n_req"]), record_commands=True)
    stream = result.commands
    assert stream is not None
    for ours, theirs in (
        (stream.cycle, "clk"),
        (stream.kind, "cmd"),
        (stream.channel, "ch"),
        (stream.rank, "ra"),
        (stream.bank_group, "bg"),
        (stream.bank, "ba"),
        (stream.row, "ro"),
        (stream.column, "co"),
    ):
        np.testing.assert_array_equal(ours, archive[f"{run}__{theirs}"].astype(np.int64), err_msg=theirs)


@pytest.mark.parametrize("measured", DRAMSIM3)
def test_dramsim3_constraint_table(measured: str) -> None:
    table, published = dramsim3_constraints(config_of(measured)), parameters()[measured]["command_to_command_cycles"]
    assert {
        "RD>RD same bankgroup": table.read_read_same_group,
        "RD>RD other bankgroup": table.read_read_other_group,
        "RD>RD other rank": table.read_read_other_rank,
        "RD>WR same rank": table.read_write_same_rank,
        "RD>WR other rank": table.read_write_other_rank,
        "RD>PRE same bank": table.read_precharge,
        "WR>RD same bankgroup": table.write_read_same_group,
        "WR>RD other bankgroup": table.write_read_other_group,
        "WR>RD other rank": table.write_read_other_rank,
        "WR>WR same bankgroup": table.write_write_same_group,
        "WR>WR other bankgroup": table.write_write_other_group,
        "WR>WR other rank": table.write_write_other_rank,
        "WR>PRE same bank": table.write_precharge,
        "ACT>ACT same bank": table.activate_activate_same_bank,
        "ACT>ACT same bankgroup": table.activate_activate_same_group,
        "ACT>ACT other bankgroup same rank": table.activate_activate_other_group,
        "ACT>RD same bank": table.activate_read,
        "ACT>WR same bank": table.activate_write,
        "ACT>PRE same bank": table.activate_precharge,
        "PRE>ACT same bank": table.precharge_activate,
        "PRE>REF same bank": table.precharge_refresh,
        "REF>ACT same rank": table.refresh_activate,
        "REF>REF same rank": table.refresh_activate,
        "4-activate window per rank": table.four_activates,
        "RDA>ACT same bank (close page)": table.read_activate,
        "WRA>ACT same bank (close page)": table.write_activate,
    } == published


@pytest.mark.parametrize("measured", RAMULATOR)
def test_ramulator_constraint_table(measured: str) -> None:
    table = ramulator_constraints(config_of(measured))
    published: dict[tuple[str, str, str], int] = {}
    for entry in parameters()[measured]["resolved_constraints"]:
        scope = entry["scope"] if not entry.get("sibling_only") else "Sibling"
        for after in entry["after"]:
            for before in entry["before"]:
                key = (scope if entry.get("window", 1) == 1 else "Window", after, before)
                published[key] = max(published.get(key, 0), entry["cycles"])
    unit = "PseudoChannel" if "hbm2" in measured else "Rank"
    expected = {
        (unit, "RD", "RD"): table.read_read_other_group,
        (unit, "WR", "WR"): table.write_write_other_group,
        (unit, "RD", "WR"): table.read_write_same_rank,
        (unit, "WR", "RD"): table.write_read_other_group,
        ("BankGroup", "RD", "RD"): table.read_read_same_group,
        ("BankGroup", "WR", "WR"): table.write_write_same_group,
        ("BankGroup", "WR", "RD"): table.write_read_same_group,
        ("BankGroup", "ACT", "ACT"): table.activate_activate_same_group,
        (unit, "ACT", "ACT"): table.activate_activate_other_group,
        ("Window", "ACT", "ACT"): table.four_activates,
        ("Bank", "ACT", "ACT"): table.activate_activate_same_bank,
        ("Bank", "ACT", "RD"): table.activate_read,
        ("Bank", "ACT", "WR"): table.activate_write,
        ("Bank", "ACT", "PREpb"): table.activate_precharge,
        ("Bank", "PREpb", "ACT"): table.precharge_activate,
        ("Bank", "RD", "PREpb"): table.read_precharge,
        ("Bank", "WR", "PREpb"): table.write_precharge,
        ("Bank", "RDA", "ACT"): table.read_activate,
        ("Bank", "WRA", "ACT"): table.write_activate,
        (unit, "PREpb", "REFab"): table.precharge_refresh,
        (unit, "REFab", "ACT"): table.refresh_activate,
    }
    if unit == "Rank":
        expected |= {
            ("Sibling", "RD", "RD"): table.read_read_other_rank,
            ("Sibling", "RD", "WR"): table.read_write_other_rank,
            ("Sibling", "WR", "RD"): table.write_read_other_rank,
            ("Channel", "WR", "WR"): table.write_write_other_rank,
        }
    assert {key: published[key] for key in expected} == expected
