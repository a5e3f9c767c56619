"""The ladder: it ends at the preset, its numbers are the simulator's, and the committed page is what the code writes."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.ladder import FEATURES, IN_LOOP, WORKLOADS, Ladder, as_json, climb, markdown
from topsieve_sim.ladder.workloads import KEY_VALUE_HEADS, QUERY_HEADS, grouped_trace
from topsieve_sim.trace.ops import QueryKey
from topsieve_sim.validation.workbench import SMALL

PAGE = Path(__file__).resolve().parents[2] / "docs" / "successor-ladder.md"


@functools.cache
def small() -> Ladder:
    (ladder,) = climb([SMALL], in_loop=False)
    return ladder


@pytest.mark.full
def test_the_committed_page_is_what_the_code_writes() -> None:
    """Regenerate with `make ladder`."""
    assert markdown(climb()) == PAGE.read_text(encoding="utf-8")


def test_the_committed_tables_of_two_workloads_are_what_the_code_writes() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for ladder in (small(), *climb(["bert-base-31"], in_loop=False)):
        section = markdown([ladder]).split("## On the ideal memory\n")[1].split("## In closed loop")[0].strip()
        assert section.count("\n") == len(FEATURES) + 4
        assert section in page


def test_the_ladder_ends_at_the_preset() -> None:
    """All that gains; tiles and pages do not, and eviction has no effect on the ideal memory."""
    fields = [field for feature in FEATURES[:-1] for field in feature.fields]
    ladder_top = load_config("spatten", [*fields, "successor.evict=true", "name=topsieve"])
    assert ladder_top == load_config("topsieve")


def test_a_rung_is_a_simulation() -> None:
    workload = next(workload for workload in WORKLOADS if workload.name == SMALL)
    report = simulate(workload.build(True), load_config("topsieve"))
    rung = next(rung for rung in small().rungs if rung.feature == "keys end early")
    assert (rung.together.cycles, rung.together.dram_bytes) == (report.cycles, report.dram_bytes_total)
    assert rung.together.energy_pj == report.energy_total_pj
    assert small().published.cycles == simulate(workload.build(False), load_config("spatten")).cycles


def test_what_the_successor_claims_on_the_published_trace() -> None:
    published, rungs = small().published, {rung.feature: rung for rung in small().rungs}
    top = rungs["keys end early"].together
    assert published.cycles / top.cycles > 2.3
    assert published.energy_pj / top.energy_pj > 1.1
    assert rungs["keys end early"].area_mm2 < 1.01 * small().area_mm2
    # Tiles are no gain, which the page says.
    assert rungs["bound taken by tiles of 128 keys"].together.cycles >= top.cycles


def test_grouped_queries_share_keys_only_where_asked() -> None:
    shared, own = (
        {(op.heads, op.kv_heads) for op in grouped_trace(shares).ops if isinstance(op, QueryKey)}
        for shares in (True, False)
    )
    assert shared == {(QUERY_HEADS, KEY_VALUE_HEADS)}
    assert own == {(QUERY_HEADS, QUERY_HEADS)}


def test_json_holds_every_number() -> None:
    (data,) = json.loads(as_json([small()]))
    assert [rung["feature"] for rung in data["rungs"]] == [feature.name for feature in FEATURES]
    assert data["published"]["cycles"] == small().published.cycles


def test_names_are_unique() -> None:
    for features in (FEATURES, IN_LOOP):
        assert len({feature.name for feature in features}) == len(features)
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)
