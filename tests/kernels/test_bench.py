"""The benchmark without a GPU: floors by hand, every case and baseline run small on the CPU, the document, the exit code."""

import json
import math
import os
import subprocess
import sys
import time

import jsonschema
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from topsieve_kernels.bench import floors
from topsieve_kernels.bench.baselines import eager_importance, flex_column_sum, merge_by_five_operations, sdpa
from topsieve_kernels.bench.cases import SMALL, bench_cases, worst
from topsieve_kernels.bench.power import WINDOW_S, board_power_w, driver_joules
from topsieve_kernels.bench.report import (
    SCHEMA,
    document,
    earlier_run,
    file_name,
    measure,
    measure_all,
    still_to_measure,
    table,
    write,
)
from topsieve_kernels.bench.shapes import FULL, SHAPES, AttentionShape, as_json, read_shapes
from topsieve_kernels.bench.timing import Timing, summary
from topsieve_kernels.importance import attention_importance, attention_importance_reference
from topsieve_kernels.merging import bipartite_merge

CEILINGS = floors.Ceilings(4.3e12, 790e12)


def wall_clock(call):
    begin = time.perf_counter()
    call()
    return summary([1e6 * (time.perf_counter() - begin)], "wall_clock")


@pytest.fixture(scope="module")
def rows():
    return [measure(case, CEILINGS, wall_clock, {}) for case in bench_cases("cpu", SMALL, torch.float32)]


@given(st.integers(1, 30), st.integers(1, 30))
def test_causal_pairs_are_counted_exactly(queries, keys):
    wanted = sum(n <= m + keys - queries for m in range(queries) for n in range(keys))
    assert floors.allowed_pairs(queries, keys, True) == wanted
    assert floors.allowed_pairs(queries, keys, False) == queries * keys


@pytest.mark.parametrize(
    ("work", "wanted_us", "bound"),
    [
        # The specification's table: B32 H12 N128 D64, B32 H12 N512 D64, B1 32/8 N8192 D128 causal.
        (floors.attention_work(32, 12, 12, 128, 128, 64, False, 2), 5.9, "memory"),
        (floors.attention_work(32, 12, 12, 512, 512, 64, False, 3), 48.9, "matmul"),
        (floors.attention_work(1, 32, 8, 8192, 8192, 128, True, 3), 1044, "matmul"),
        # Decode, 16 sequences, 8 key-value heads, half of 32 768 rows kept; top-k of 4096 rows of 200 000.
        (floors.decode_work(16, 32, 8, 16384, 128), 250, "memory"),
        (floors.select_work(4096, 200000, 1024), 762, "memory"),
        # MSB plane and int8 values only.
        (floors.progressive_work(16, 32, 8, 32768, 128, 0.0), 187, "memory"),
    ],
)
def test_floors_are_the_computed_ones(work, wanted_us, bound):
    # The table is rounded to three digits and leaves out indices, steps and probabilities (up to 6 %).
    assert wanted_us * 0.99 <= work.floor_us(CEILINGS) <= wanted_us * 1.07
    assert work.bound_by(CEILINGS) == bound


def test_every_case_passes_its_check(rows):
    assert {row["kernel"] for row in rows} == {
        "attention_importance", "decode_gathered", "decode_progressive", "topk_select", "bipartite_merge", "gather_rows",
    }  # fmt: skip
    for row in rows:
        assert row["passed"], row
        assert row["error_over_bound"] <= 1


def test_every_baseline_runs_or_says_why(rows):
    for row in rows:
        assert row["baselines"]
        for name, found in row["baselines"].items():
            # On a CPU torch has no cuDNN.
            assert ("unavailable" in found) == ("cudnn" in name), (name, found)


def test_the_document_follows_its_schema(rows, tmp_path):
    result = document(rows, [], CEILINGS, "a device", "float32", {"clocks.sm": "1980 MHz"}, {})
    jsonschema.validate(result, SCHEMA)
    write(result, tmp_path / "deep" / "bench.json")
    assert json.loads((tmp_path / "deep" / "bench.json").read_text()) == result
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["bench.json"]
    for wrong in (dict(result, extra=1), dict(result, rows=[{}]), {k: v for k, v in result.items() if k != "ceilings"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, SCHEMA)


def test_the_table_shows_every_row_and_ratio(rows):
    text = table(document(rows, [], CEILINGS, "a device", "float32", {}, {"clocks.sm": "1980 MHz"}))
    for row in rows:
        assert row["kernel"] in text
        assert row["shape"] in text
        for name in row["baselines"]:
            assert name in text
    assert "copy 4.30 TB/s" in text
    assert "790 TFLOP/s" in text
    assert "clocks.sm 1980 MHz" in text
    wrong = [dict(rows[0], passed=False)]
    assert "WRONG" in table(document(wrong, [], CEILINGS, "a device", "float32", {}, {}))


def test_a_wrong_result_does_not_pass(rows):
    assert math.isnan(worst(0.0, math.nan))
    case = next(iter(bench_cases("cpu", SMALL, torch.float32)))
    for ratio in (1.5, math.inf, math.nan):
        broken = type(case)(case.shape, case.work, case.ours, lambda ratio=ratio: ratio)
        row = measure(broken, CEILINGS, wall_clock, {})
        assert not row["passed"]
        json.dumps(row, allow_nan=False)


def test_both_lists_of_shapes_cover_every_kernel():
    for shapes in (FULL, SMALL):
        assert {shape.kernel for shape in shapes} == set(SHAPES)
        assert len(set(shapes)) == len(shapes)


def test_shapes_come_back_from_their_file(tmp_path):
    path = tmp_path / "shapes.json"
    path.write_text(json.dumps(as_json((*FULL, *FULL))))
    assert set(read_shapes(path)) == set(FULL)
    assert len(read_shapes(path)) == len(FULL)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ("cannot read",)),
        ("[]", ("KERNEL",)),
        ("{}", ("holds no shape",)),
        ('{"softmax": [{}]}', ("unknown kernel", "'softmax'", "topk_select")),
        ('{"topk_select": [{"rows": 1, "columns": 4}]}', ("topk_select", "the fields rows, columns, k")),
        ('{"topk_select": [{"rows": 1, "columns": 4, "k": 5}]}', ("topk_select.k", "got 5", "1 to columns = 4")),
        ('{"topk_select": [{"rows": true, "columns": 4, "k": 2}]}', ("topk_select.rows", "True", "integer")),
        ('{"topk_select": [7]}', ("topk_select", "got 7")),
        ('{"decode_progressive": [{"batch": 1, "heads": 4, "key_heads": 3, "keys": 9, "head_dim": 8, "threshold": 0}]}',
         ("key_heads", "a divisor of heads = 4")),
    ],
)  # fmt: skip
def test_a_file_without_shapes_is_refused_in_one_line(content, words, tmp_path):
    path = tmp_path / "shapes.json"
    path.write_text(content)
    with pytest.raises(ValueError) as caught:
        read_shapes(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


class Board:
    """A clock and an energy counter that advances in steps, as a driver's does; `call` is work of `call_s`."""

    def __init__(self, power_w: float, step_s: float, call_s: float, start_s: float) -> None:
        self.power_w, self.step_s, self.call_s, self.now_s = power_w, step_s, call_s, start_s

    def call(self) -> None:
        self.now_s += self.call_s

    def now(self) -> float:
        return self.now_s

    def joules(self) -> float:
        return math.floor(self.now_s / self.step_s) * self.step_s * self.power_w


@given(st.floats(10, 1000), st.floats(0.01, 0.2), st.floats(1e-3, 0.03), st.floats(0, 1))
def test_power_is_that_of_the_board_whatever_the_counters_step(power_w, step_s, call_s, start_s):
    """Each end is seen at most one call late."""
    board = Board(power_w, step_s, call_s, start_s)
    found = board_power_w(board.call, board.joules, board.now)
    assert found == pytest.approx(power_w, rel=2 * call_s / WINDOW_S + 1e-6)


def test_a_counter_that_stands_still_or_fails_gives_no_power():
    board = Board(100, 0.02, 0.005, 0)
    assert board_power_w(board.call, lambda: 5.0, board.now) is None
    assert board_power_w(board.call, lambda: None, board.now) is None
    assert driver_joules("GPU-0", "libabsent-nvidia-ml.so.1") is None


DRIVER = r"""
#include <string.h>
static unsigned long long spent = 1500;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) { *device = &spent; return strcmp(uuid, "GPU-1") ? 6 : 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    *millijoules = *(unsigned long long *)device; spent += 250; return 0; }
"""


def test_the_drivers_counter_is_read_through_its_c_interface(tmp_path):
    source, library = tmp_path / "driver.c", tmp_path / "driver.so"
    source.write_text(DRIVER)
    subprocess.run(["g++", "-xc", "-shared", "-fPIC", "-o", library, source], check=True)
    joules = driver_joules("GPU-1", str(library))
    # The first reading was the question whether there is a counter.
    assert [joules(), joules()] == [1.75, 2.0]
    assert driver_joules("GPU-2", str(library)) is None


def test_energy_is_power_times_the_median(rows):
    timing = Timing(4.0, 3.0, 5.0, 25, "graph", board_power_w=500.0)
    assert timing.board_energy_uj == 2000.0
    for row in rows:
        assert row["ours"]["board_power_w"] is None
        assert row["ours"]["board_energy_uj"] is None
    (case, *_) = bench_cases("cpu", SMALL, torch.float32)
    row = measure(case, CEILINGS, lambda call: timing, {})
    assert (row["ours"]["board_power_w"], row["ours"]["board_energy_uj"]) == (500.0, 2000.0)
    result = document([row], [], CEILINGS, "NVIDIA H100 80GB HBM3", "bfloat16", {}, {})
    jsonschema.validate(result, SCHEMA)
    assert "500" in table(result)
    assert "2000" in table(result)
    assert file_name("NVIDIA H100 80GB HBM3") == f"nvidia-h100-80gb-hbm3-{result['date']}.json"


def test_a_shape_that_does_not_run_takes_no_other_with_it():
    """Heads of more than 256 channels are refused by the kernel; what stands before and after is measured."""
    shapes = (SMALL[5], AttentionShape(1, 2, 2, 4, 4, 512, False), SMALL[7])
    said = []
    rows, failed = measure_all(shapes, "cpu", torch.float32, CEILINGS, wall_clock, dict, said.append)
    assert [row["kernel"] for row in rows] == ["topk_select", "gather_rows"]
    (found,) = failed
    assert (found["kernel"], found["shape"]) == ("attention_importance", str(shapes[1]))
    assert "head_dim" in found["error"]
    assert len(said) == 3
    result = document(rows, failed, CEILINGS, "a device", "float32", {}, {})
    jsonschema.validate(result, SCHEMA)
    assert "FAILED ValueError: head_dim" in table(result)


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    """The file is whole after every shape; only rows that passed, of this machine, dtype and day, are not measured again."""
    path, device = tmp_path / "bench.json", "a device"
    shapes = (SMALL[5], AttentionShape(1, 2, 2, 4, 4, 512, False), SMALL[7])
    seen = []

    def keep(rows, failed):
        write(document(rows, failed, CEILINGS, device, "float32", {}, {}), path)
        found = earlier_run(path, device, "float32")
        jsonschema.validate(found, SCHEMA)
        kept, kept_failed, todo = still_to_measure(found, shapes)
        seen.append((len(kept), len(kept_failed), todo))

    measure_all(shapes, "cpu", torch.float32, CEILINGS, wall_clock, dict, keep=keep)
    # What failed is tried again.
    assert seen == [(1, 0, shapes[1:]), (1, 0, shapes[1:]), (2, 0, shapes[1:2])]
    result = earlier_run(path, device, "float32")
    result["rows"][0]["passed"] = False
    assert still_to_measure(result, shapes)[2] == shapes[:2]
    # What is not asked for stays, failures and all; asked for again, it is measured again.
    assert still_to_measure(result, shapes[2:]) == (result["rows"], result["failed"], ())
    assert still_to_measure(result, shapes[2:], again=True) == (result["rows"][:1], result["failed"], shapes[2:])
    assert earlier_run(path, "another device", "float32") is None
    assert earlier_run(path, device, "bfloat16") is None
    assert earlier_run(tmp_path / "absent.json", device, "float32") is None
    write(dict(result, date="2001-01-01"), path)
    assert earlier_run(path, device, "float32") is None
    path.write_text("{")
    assert earlier_run(path, device, "float32") is None
    write({name: value for name, value in result.items() if name != "rows"}, path)
    with pytest.raises(ValueError, match=r"bench\.json: not a whole measurement \(KeyError\('rows'\)\); remove it"):
        earlier_run(path, device, "float32")


@pytest.mark.parametrize("causal", [False, True])
def test_baselines_of_attention_give_the_definition(relative_error, causal):
    """Fewer queries than keys too, where a causal mask must be aligned bottom right."""
    generator = torch.Generator().manual_seed(0)
    for rows in (20, 6):
        query = torch.randn(1, 4, rows, 16, generator=generator)
        key, value = (torch.randn(1, 2, 20, 16, generator=generator) for _ in range(2))
        wanted = attention_importance_reference(*(x.double() for x in (query, key, value)), causal=causal)
        output, columns = eager_importance(query, key, value, causal)
        assert relative_error(output, wanted.output) < 1e-6
        assert relative_error(columns, wanted.token_sum) < 1e-6
        assert relative_error(sdpa("sdpa_flash", query, key, value, causal), wanted.output) < 1e-6


def test_work_grows_with_what_is_written():
    shape = AttentionShape(1, 4, 2, 10, 10, 16, True)
    assert shape.work(2).memory_bytes - shape.work(2, sums=False).memory_bytes == 4 * (2 * 10 + 4)
    assert shape.work(2).flops == 2 * 2 * 4 * 55 * 16


@pytest.mark.parametrize("causal", [False, True])
def test_flex_column_sums_are_ours(relative_error, causal):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 40, 16, generator=generator)
    key, value = (torch.randn(2, 2, 40, 16, generator=generator) for _ in range(2))
    ours = attention_importance(query, key, value, causal=causal)
    found = flex_column_sum(query, key, ours.log_sum_exp, causal)()
    assert relative_error(found, ours.token_sum) < 1e-6


def test_five_operations_merge_as_ours_does(relative_error):
    generator = torch.Generator().manual_seed(0)
    tokens, metric = torch.randn(2, 30, 6, generator=generator), torch.randn(2, 30, 5, generator=generator)
    ours, found = bipartite_merge(tokens, metric, 7), merge_by_five_operations(tokens, metric, 7)
    # Same rows, other order: sources that stay come first there.
    assert relative_error(found.sum(1), ours.tokens.sum(1)) < 1e-5
    assert relative_error(found.flatten(1).sort().values, ours.tokens.flatten(1).sort().values) < 1e-6


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_gpu_it_says_so_and_exits_2(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "topsieve_kernels.bench", "--out", str(tmp_path / "bench.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "gpu-bench: no CUDA device here, nothing was measured\n"
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())
