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
from topsieve_kernels.bench.baselines import flex_column_sum, merge_by_five_operations
from topsieve_kernels.bench.cases import FULL, SMALL, bench_cases, worst
from topsieve_kernels.bench.report import SCHEMA, document, measure, table, write
from topsieve_kernels.bench.timing import summary
from topsieve_kernels.importance import attention_importance
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
            assert ("unavailable" in found) == name.startswith("sdpa_cudnn"), (name, found)


def test_the_document_follows_its_schema(rows, tmp_path):
    result = document(rows, CEILINGS, "a device", {"clocks.sm": "1980 MHz"}, {})
    jsonschema.validate(result, SCHEMA)
    write(result, tmp_path / "deep" / "bench.json")
    assert json.loads((tmp_path / "deep" / "bench.json").read_text()) == result
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["bench.json"]
    for wrong in (dict(result, extra=1), dict(result, rows=[{}]), {k: v for k, v in result.items() if k != "ceilings"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, SCHEMA)


def test_the_table_shows_every_row_and_ratio(rows):
    text = table(document(rows, CEILINGS, "a device", {}, {"clocks.sm": "1980 MHz"}))
    for row in rows:
        assert row["kernel"] in text
        assert row["shape"] in text
        for name in row["baselines"]:
            assert name in text
    assert "copy 4.30 TB/s" in text
    assert "790 TFLOP/s" in text
    assert "clocks.sm 1980 MHz" in text
    wrong = [dict(rows[0], passed=False)]
    assert "WRONG" in table(document(wrong, CEILINGS, "a device", {}, {}))


def test_a_wrong_result_does_not_pass(rows):
    assert math.isnan(worst(0.0, math.nan))
    case = next(iter(bench_cases("cpu", SMALL, torch.float32)))
    for ratio in (1.5, math.inf, math.nan):
        broken = type(case)(case.kernel, case.shape, case.work, case.ours, lambda ratio=ratio: ratio)
        row = measure(broken, CEILINGS, wall_clock, {})
        assert not row["passed"]
        json.dumps(row, allow_nan=False)


def test_full_sizes_cover_every_kernel():
    assert set(FULL) == set(SMALL)
    assert all(FULL.values())


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
