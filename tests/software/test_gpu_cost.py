"""Work of a trace on a GPU: bounds from below, measured times before bounds, sources that say which."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.rival_cases import attention_trace
from sim.trace_strategies import traces
from software.gpu_files import CEILINGS, H100, bench_file, changed
from topsieve.gpu import from_plain, gpu_cost, gpu_names, gpu_work, load_gpu, shapes_to_measure, to_plain
from topsieve.gpu.cost import PowerSource, Source
from topsieve.gpu.machine import DEFAULT, MEASURED, Gpu
from topsieve.gpu.measurement import load_measurement
from topsieve.gpu.ops import Attention, GatherRows, MatchAndMerge, Other, Select, op_from, other
from topsieve.gpu.page import BEGIN, END, measured_section, with_section
from topsieve.gpu.work import Counted
from topsieve_kernels.bench.shapes import AttentionShape, DecodeShape, SelectShape
from topsieve_sim.engine import AttentionWork, prepare
from topsieve_sim.engine.singles import HOST_KINDS
from topsieve_sim.errors import InputError
from topsieve_sim.rivals import Roofline, load_platform
from topsieve_sim.trace import TopKScope, Trace
from topsieve_sim.trace.ops import (
    OP_KINDS,
    ArgmaxRow,
    FeedForward,
    GreedyMaxMin,
    Merge,
    Norm,
    Op,
    Pool1d,
    ProbabilityValue,
    Projection,
    QueryKey,
    RowPick,
    Search,
    Similarity,
    Softmax,
    Threshold,
    TopK,
)

ROOT = Path(__file__).parents[2]
BARE = Gpu(load_platform(DEFAULT))
SMALL = st.integers(1, 40)

SINGLES = (
    TopK(layer=0, n=9, k=4, scope=TopKScope.TOKEN),
    TopK(layer=0, n=9, k=0, scope=TopKScope.HEAD),
    Threshold(layer=0, n=9, kept=3),
    Norm(layer=0, rows=5, width=7),
    Similarity(layer=0, rows_a=4, rows_b=5, width=6),
    ArgmaxRow(layer=0, rows=4, cols=5),
    GreedyMaxMin(layer=0, n=9, k=3),
    Pool1d(layer=0, n=9, window=3),
    Search(layer=0, n=9, samples=4),
    Merge(layer=0, sources=4, targets=2, width=8),
)  # fmt: skip
LINEAR = (
    Projection(layer=0, tokens=3, inputs=4, outputs=5, role="o"),
    FeedForward(layer=0, tokens=3, width=4, hidden=8),
    FeedForward(layer=0, tokens=3, width=4, hidden=8, gated=True),
    OP_KINDS["gather"](layer=0, rows=3, width=4, bits=16),
)


def merging(tokens: int, removed: int, width: int = 6, channels: int = 12) -> tuple[Op, ...]:
    """Bipartite merging as a method lowers it."""
    even, odd = (tokens + 1) // 2, tokens // 2
    return (
        Norm(layer=0, rows=tokens, width=width),
        Similarity(layer=0, rows_a=even, rows_b=odd, width=width),
        ArgmaxRow(layer=0, rows=even, cols=odd),
        TopK(layer=0, n=even, k=removed, scope=TopKScope.EDGE),
        OP_KINDS["gather"](layer=0, rows=tokens - removed, width=channels, bits=32),
        Merge(layer=0, sources=removed, targets=removed, width=channels),
    )


# --- laws of the bound ---


@given(SMALL, st.integers(1, 4), SMALL, SMALL, SMALL, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2))
def test_a_bound_is_at_least_bytes_over_bandwidth_and_operations_over_peak(
    key_heads, group, rows, keys, head_dim, causal, columns, heads_too, picked
):
    """Counted here one pair and one tensor at a time."""
    heads = key_heads * group
    op = Attention(heads, key_heads, rows, keys, head_dim, causal, columns, heads_too, picked)
    (cost,) = gpu_cost([Counted(op, 1)], BARE).ops
    platform = BARE.platform
    pairs = sum(not causal or n <= m + keys - rows for m in range(rows) for n in range(keys))
    tensors = [(heads, rows), (heads, rows), (key_heads, keys), (key_heads, keys)]
    moved = platform.element_bytes * sum(a * b * head_dim for a, b in tensors)
    assert cost.time_us >= moved / (platform.bandwidth_gb_per_s.value * 1e3)
    assert cost.time_us >= 4 * heads * pairs * head_dim / (platform.peak_gflops.value * 1e3)
    assert cost.time_us == cost.bound_us
    assert cost.source is Source.ROOFLINE
    assert cost.energy_uj == platform.board_power_w.value * cost.time_us
    assert cost.power is PowerSource.DATA_SHEET


@given(st.integers(0, 99), st.integers(1, 12), st.integers(0, 30), st.booleans())
def test_plain_attention_has_the_bound_of_the_rivals(seed, queries, more, causal):
    """`topsieve rivals` and `topsieve compare` say the same of the same work."""
    trace = attention_trace(seed, share=2, queries=queries, keys=queries + more, causal=causal, operands=False)
    cost = gpu_cost(gpu_work(trace), BARE)
    roofline = Roofline(platform=DEFAULT)
    wanted = sum(roofline.microseconds(unit) for unit in prepare(trace).work if isinstance(unit, AttentionWork))
    assert cost.time_us == pytest.approx(wanted, rel=1e-12)


@given(st.integers(1, 64), st.integers(1, 20), st.integers(1, 30))
def test_a_larger_op_has_no_smaller_bound(tokens, more, width):
    for small, large in (
        (Select(2, tokens, 1), Select(2, tokens + more, 1)),
        (GatherRows(tokens, width), GatherRows(tokens + more, width)),
        (MatchAndMerge(2 * tokens, width, 8, 1, 1), MatchAndMerge(2 * (tokens + more), width, 8, 1, 1)),
        (Attention(2, 1, tokens, tokens, width, True), Attention(2, 1, tokens + more, tokens + more, width, True)),
    ):
        assert small.work(2).memory_bytes < large.work(2).memory_bytes
        assert small.work(2).flops <= large.work(2).flops


@pytest.mark.parametrize("op", [*SINGLES, *LINEAR], ids=lambda op: op.kind)
def test_every_operation_of_the_accelerator_has_a_bound(op):
    trace = Trace((op,))
    (counted,) = gpu_work(trace, linear=True)
    (cost,) = gpu_cost([counted], BARE).ops
    assert cost.time_us > 0
    assert cost.time_us >= op.flops / (BARE.platform.peak_gflops.value * 1e3)
    assert gpu_work(trace) == (() if op.kind in HOST_KINDS else (counted,))


def test_other_operations_move_their_inputs_and_outputs_once():
    """By hand, two bytes an element."""
    wanted = {"similarity": 2 * 9 * 6 + 4 * 20, "norm": 2 * 35 + 4 * 5, "argmax_row": 4 * 20 + 8 * 4, "pool1d": 72}
    for op in SINGLES:
        if op.kind in wanted:
            assert other(op).work(2).memory_bytes == wanted[op.kind]
    assert other(SINGLES[4]).work(2).flops == 2 * 4 * 5 * 6


# --- from a trace to calls ---


@given(traces())
def test_every_descriptor_is_one_call_and_comes_back_from_json(trace):
    for linear in (False, True):
        work = gpu_work(trace, linear=linear)
        units = [
            unit
            for unit in prepare(trace).work
            if isinstance(unit, AttentionWork) or linear or unit.op.kind not in HOST_KINDS
        ]
        assert sum(counted.count for counted in work) == len(units)
        assert from_plain(json.loads(json.dumps(to_plain(work)))) == work
        cost = gpu_cost(work, BARE)
        assert cost.time_us == cost.bound_us == cost.roofline_us
        assert cost.measured_share == 0


def test_equal_layers_are_counted_and_not_repeated():
    work = gpu_work(attention_trace(0, layers=5, operands=False))
    assert [counted.count for counted in work] == [5]
    one = gpu_work(attention_trace(0, layers=1, operands=False))
    assert gpu_cost(work, BARE).time_us == pytest.approx(5 * gpu_cost(one, BARE).time_us)


def test_taps_and_masks_are_those_of_the_group():
    place = {"layer": 0}
    ops = (
        QueryKey(**place, heads=4, kv_heads=2, queries=6, keys=9, head_dim=8, causal=True),
        Softmax(**place, heads=4, rows=6, cols=9),
        OP_KINDS["column_sum"](**place, heads=4, rows=6, cols=9),
        RowPick(**place, heads=4, rows=1, cols=9),
        ProbabilityValue(**place, heads=4, kv_heads=2, queries=6, keys=9, kept=9, head_dim=8),
    )
    (counted,) = gpu_work(Trace(ops))
    assert counted.op == Attention(4, 2, 6, 9, 8, True, column_sums=True, picked_rows=1)
    assert shapes_to_measure([counted]) == (
        AttentionShape(1, 4, 2, 6, 9, 8, True),
        DecodeShape(1, 4, 2, 9, 9, 8),
    )
    plain = Attention(4, 2, 6, 9, 8, True)
    assert counted.op.work(2).memory_bytes - plain.work(2).memory_bytes == 4 * (9 + 4 * 9)


def test_five_operations_of_merging_are_one_kernel():
    (counted,) = gpu_work(Trace(merging(21, 5)))
    assert counted == Counted(MatchAndMerge(21, 6, 12, 5, 5), 1)
    apart = gpu_work(Trace(merging(21, 5)), linear=True)
    assert sorted(one.op.kind for one in apart) == ["gather", "other", "other", "other", "other", "topk"]
    broken = gpu_work(Trace((*merging(21, 5)[:5], Merge(layer=0, sources=4, targets=4, width=12))))
    assert MatchAndMerge.kind not in {one.op.kind for one in broken}
    # Scores that never reach memory make the fused kernel no dearer than its parts.
    parts = gpu_cost([one for one in apart if one.op.kind != "gather"], BARE)
    assert gpu_cost([counted], BARE).time_us <= parts.time_us


# --- measured before bounded ---

QUERIES = Attention(4, 2, 24, 24, 16, True)
IMPORTANT = Attention(4, 2, 24, 24, 16, True, column_sums=True)
PICKED = Attention(4, 2, 24, 24, 16, True, picked_rows=2)
STEP = Attention(4, 2, 1, 24, 16, False)
SEEN_STEP = Attention(4, 2, 1, 24, 16, False, column_sums=True)
SORTED = Select(3, 50, 7)
MERGED = MatchAndMerge(21, 8, 12, 5, 4)
MOVED = GatherRows(9, 16)
EVERY = tuple(Counted(op, 2) for op in (QUERIES, IMPORTANT, PICKED, STEP, SEEN_STEP, SORTED, MERGED, MOVED))
UNMEASURED = Counted(other(SINGLES[3]), 3)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gpu") / "invented.json"
    return bench_file(path, shapes_to_measure(EVERY), watts=400.0)


def row(file: Path, kernel: str) -> dict:
    (found,) = [row for row in json.loads(file.read_text())["rows"] if row["kernel"] == kernel]
    return found


def times(found: dict) -> dict[str, float]:
    """By way, the microseconds of a row."""
    ran = {name: one["timing"]["median_us"] for name, one in found["baselines"].items() if "timing" in one}
    return {"ours": found["ours"]["median_us"], **ran}


def test_what_is_to_be_measured_is_found_again(file):
    """The shapes that a work asks for, measured by the benchmark's own code, leave nothing to a bound."""
    cost = gpu_cost(EVERY, load_gpu(str(file)))
    assert cost.source is Source.MEASURED
    assert cost.power is PowerSource.MEASURED
    assert (cost.measured_share, cost.roofline_us, cost.calls) == (1.0, 0.0, 16)
    assert cost.time_us == cost.measured_us > cost.bound_us
    assert cost.energy_uj == pytest.approx(400.0 * cost.time_us)


def test_each_operation_takes_the_fastest_way_to_the_same_result(file):
    gpu = load_gpu(str(file))
    attention, decode = times(row(file, "attention_importance")), times(row(file, "decode_gathered"))
    select, merge, gather = (times(row(file, name)) for name in ("topk_select", "bipartite_merge", "gather_rows"))
    wanted = {
        QUERIES: min(attention["ours"], attention["ours_two_passes"], attention["sdpa_flash"]),
        IMPORTANT: min(attention["ours"], attention["ours_two_passes"]),
        PICKED: min(attention["ours"], attention["ours_two_passes"], attention["sdpa_flash"]) + 2 * decode["ours"],
        STEP: min(decode["ours"], decode["sdpa_flash_on_gathered_copy"]),
        SEEN_STEP: decode["ours"],
        SORTED: min(select["ours"], select["torch_stable_sort"]),
        MERGED: merge["ours"],
        MOVED: min(gather["ours"], gather["take_along_dim"], gather["index_select"]),
    }
    for op, us in wanted.items():
        (cost,) = gpu_cost([Counted(op, 1)], gpu).ops
        assert cost.time_us == us, op


def test_a_faster_rival_of_the_kernel_is_the_gpus_time_and_another_result_is_not(file, tmp_path):
    def faster(content):
        for found in content["rows"]:
            for name in ("sdpa_flash", "torch_topk_any_tie_order", "torch_stable_sort", "flex_column_sum_alone"):
                if name in found["baselines"]:
                    us = 0.5 if name == "torch_topk_any_tie_order" else 2.0
                    found["baselines"][name]["timing"]["median_us"] = us

    path = tmp_path / "faster.json"
    path.write_text(file.read_text())
    gpu = load_gpu(str(changed(path, faster)))
    before = load_gpu(str(file))
    for op, us in ((QUERIES, 2.0), (SORTED, 2.0)):
        assert gpu_cost([Counted(op, 1)], gpu).time_us == us
    assert gpu_cost([Counted(IMPORTANT, 1)], gpu).time_us == gpu_cost([Counted(IMPORTANT, 1)], before).time_us


def test_a_shape_that_was_not_measured_is_bounded_and_the_totals_say_so(file):
    larger = Counted(Attention(4, 2, 25, 25, 16, True), 1)
    cost = gpu_cost([*EVERY, UNMEASURED, larger], load_gpu(str(file)))
    assert cost.source is Source.MIXED
    assert cost.power is PowerSource.MIXED
    assert cost.measured_share == 16 / 20
    assert cost.time_us == pytest.approx(cost.measured_us + cost.roofline_us)
    assert cost.measured_us == pytest.approx(gpu_cost(EVERY, load_gpu(str(file))).time_us)
    assert cost.roofline_us == pytest.approx(gpu_cost([UNMEASURED, larger], BARE).time_us)
    assert cost.bound_us == pytest.approx(gpu_cost([*EVERY, UNMEASURED, larger], BARE).time_us)
    board_w = BARE.platform.board_power_w.value
    assert cost.energy_uj == pytest.approx(400.0 * cost.measured_us + board_w * cost.roofline_us)


@pytest.mark.parametrize("op", [one.op for one in EVERY], ids=str)
def test_only_the_exact_shape_is_found(op, file):
    """Every count decides; one more of any is another shape, of which nothing is known."""
    gpu = load_gpu(str(file))
    # What a measured call does not depend on: where merged tokens go.
    for name in set(op.dimensions) - {"targets", "column_sums", "head_sums", "picked_rows", "causal"}:
        step = op.key_heads if name == "heads" else 1
        try:
            another = replace(op, **{name: op.dimensions[name] + step})
            list(another.shapes())
        except ValueError:
            # Key heads that do not divide the heads are no shape at all.
            continue
        (cost,) = gpu_cost([Counted(another, 1)], gpu).ops
        assert cost.source is Source.ROOFLINE, another
    if isinstance(op, Attention) and op.rows > 1:
        (cost,) = gpu_cost([Counted(replace(op, causal=not op.causal), 1)], gpu).ops
        assert cost.source is Source.ROOFLINE


def test_a_wrong_result_has_no_time(file, tmp_path):
    path = tmp_path / "wrong.json"
    path.write_text(file.read_text())
    gpu = load_gpu(str(changed(path, lambda content: [found.update(passed=False) for found in content["rows"]])))
    assert gpu_cost(EVERY, gpu).source is Source.ROOFLINE


def test_without_measured_power_it_is_the_data_sheets(tmp_path):
    gpu = load_gpu(str(bench_file(tmp_path / "powerless.json", [SelectShape(3, 50, 7)])))
    cost = gpu_cost([Counted(SORTED, 2)], gpu)
    assert (cost.source, cost.power) == (Source.MEASURED, PowerSource.DATA_SHEET)
    assert cost.energy_uj == pytest.approx(700.0 * cost.time_us)


def test_a_gpu_without_a_data_sheet_is_bounded_by_its_own_run(tmp_path):
    file = bench_file(tmp_path / "unknown.json", [SelectShape(3, 50, 7)], watts=50.0, device="NVIDIA Unheard-of 1")
    gpu = load_gpu(str(file))
    assert gpu.platform.bandwidth_gb_per_s.value == CEILINGS.copy_bytes_per_s / 1e9
    assert gpu.platform.peak_gflops.value == CEILINGS.matmul_flops_per_s / 1e9
    measured, mixed = gpu_cost([Counted(SORTED, 1)], gpu), gpu_cost([Counted(SORTED, 1), UNMEASURED], gpu)
    assert measured.energy_uj == pytest.approx(50.0 * measured.time_us)
    # Nobody knows what its board draws for the rest.
    assert (mixed.energy_uj, mixed.power) == (None, PowerSource.UNKNOWN)
    assert mixed.summary(1.0, 1.0)["accelerator_over_gpu_energy"] is None


def test_ratios_are_those_of_the_columns(file):
    for cost in (gpu_cost([*EVERY, UNMEASURED], load_gpu(str(file))), gpu_cost(EVERY, BARE)):
        found = cost.summary(latency_us=12.5, energy_pj=3e6)
        assert found["accelerator_over_gpu_time"] == pytest.approx(12.5 / found["time_us"])
        assert found["accelerator_over_gpu_energy"] == pytest.approx(3.0 / found["energy_uj"])
        assert found["time_us"] == pytest.approx(found["measured_us"] + found["roofline_us"])
    assert gpu_cost((), BARE).summary(1.0, 1.0)["accelerator_over_gpu_time"] is None


@given(st.sampled_from([one.op for one in EVERY] + [UNMEASURED.op]))
def test_operations_come_back_from_their_dimensions(op):
    assert op_from(op.kind, op.dimensions) == op


def test_an_unknown_operation_is_no_silent_zero():
    with pytest.raises(NotImplementedError):
        Other("softmax", (("cols", 2), ("heads", 1), ("rows", 1), ("size_bias", False))).work(2)


# --- which GPU ---


def test_without_a_measurement_it_is_the_default_data_sheet(tmp_path):
    gpu = load_gpu(None, tmp_path)
    assert (gpu.platform.name, gpu.measurement) == (DEFAULT, None)
    assert DEFAULT in gpu_names()
    assert "xeon-e5-2640-v4" not in gpu_names()
    assert all(load_platform(name).board_power_w for name in gpu_names())


def test_the_newest_committed_measurement_is_the_default(tmp_path):
    shapes = [SelectShape(3, 50, 7)]
    dates = {"a.json": "2026-03-01", "b.json": "2026-03-02", "c.json": "2026-02-27"}
    devices = {"a.json": "NVIDIA H200", "b.json": H100, "c.json": H100}
    for name, day in dates.items():
        file = bench_file(tmp_path / name, shapes, device=devices[name])
        changed(file, lambda content, day=day: content.update(date=day))
    assert load_gpu(None, tmp_path).measurement.name == "b.json"
    assert load_gpu("h100-sxm", tmp_path).measurement.name == "b.json"
    assert load_gpu("h200-sxm", tmp_path).measurement.name == "a.json"
    assert load_gpu("titan-xp", tmp_path).measurement is None
    assert load_gpu(str(tmp_path / "c.json"), tmp_path).measurement.facts["date"] == "2026-02-27"


@pytest.mark.parametrize("name", ["cray-1", "xeon-e5-2640-v4", "raspberry-pi-4", "absent.yaml", "absent.json", ""])
def test_no_such_gpu_is_one_line(name):
    with pytest.raises(InputError) as caught:
        load_gpu(name)
    assert "\n" not in str(caught.value)
    if not name.startswith("absent"):
        assert "h100-sxm" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.update(schema_version=1), ("schema_version", "1", "allowed: 2")),
        (lambda content: content.pop("schema_version"), ("not a JSON file of make gpu-bench",)),
        (lambda content: content.pop("ceilings"), ("ceilings", "missing")),
        (lambda content: content.update(date="yesterday"), ("date", "yesterday")),
        (lambda content: content.update(dtype="float32"), ("dtype", "float32")),
        (lambda content: content["rows"][0]["ours"].update(median_us=0), ("rows.0.ours.median_us",)),
        (lambda content: content["rows"][0]["ours"].update(median_us=math.inf), ("rows.0.ours.median_us",)),
        (lambda content: content["rows"][0]["ours"].update(method="wall_clock"), ("rows.0.ours.method", "wall_clock")),
        (lambda content: content["rows"][0].pop("dimensions"), ("rows.0.dimensions", "missing")),
    ],
)
def test_a_file_that_is_none_is_one_line(change, words, file, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(file.read_text())
    with pytest.raises(InputError) as caught:
        load_measurement(changed(path, change))
    for word in ("bad.json", *words):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_file_is_one_line(tmp_path):
    for content in (b"{", b"\xff\xfe", b"[]"):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.json.*make gpu-bench"):
            load_measurement(tmp_path / "bad.json")


# --- the page ---


def test_the_page_says_what_the_committed_files_say():
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    committed = [load_measurement(path) for path in sorted(MEASURED.glob("*.json"))]
    assert with_section(page, measured_section(committed), "gpu.md") == page


def test_the_page_shows_every_row_with_ratios_and_power(file):
    text = with_section(f"before\n{BEGIN}\nold\n{END}\nafter\n", measured_section([load_measurement(file)]), "page")
    assert "old" not in text
    assert (text.startswith("before\n"), text.endswith("after\n")) == (True, True)
    assert f"**{H100}**" in text
    content = json.loads(file.read_text())
    assert content["date"] in text
    for found in content["rows"]:
        (line,) = [line for line in text.splitlines() if f"| `{found['kernel']}` | {found['shape']} |" in line]
        assert f"| {found['ours']['median_us']:.1f} |" in line
        assert f"| 400 | {found['ours']['board_energy_uj']:.0f} |" in line
        for name, baseline in found["baselines"].items():
            shown = "timing" in baseline and f"{name} {baseline['ours_over_baseline']:.2f}" in line
            assert shown == ("timing" in baseline)
    with pytest.raises(InputError, match="no place"):
        with_section("nothing", "x", "page")


def test_it_needs_no_torch():
    """In a process of its own; sizes and floors of the benchmark come without its kernels."""
    code = "import sys, topsieve.gpu; sys.exit(len({'torch', 'triton', 'transformers'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
