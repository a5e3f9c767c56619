"""What ending keys early costs: exact where nothing ends, no key kept for a sharper threshold, and the page says what is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from topsieve.bit_plans import Operands
from topsieve.early_termination import (
    PRESET_THRESHOLD,
    candidates,
    decoding_only,
    machine,
    measure,
    trace_rows,
    write_page,
)
from topsieve_sim.arch import load_config
from topsieve_sim.trace import Trace
from topsieve_sim.trace.ops import ProbabilityValue, QueryKey, Softmax

PAGE = Path(__file__).parents[2] / "docs" / "early-termination.md"


@pytest.fixture(scope="module")
def operands() -> list[Operands]:
    rng = np.random.default_rng(0)
    return [
        Operands(*(rng.standard_normal((2, rows, 16)) * peak for rows, peak in ((6, scale), (90, 1), (90, 1))))
        for scale in (0.3, 2.0, 6.0)
    ]


def test_a_sharper_threshold_keeps_fewer_keys_and_errs_more(operands: list[Operands]) -> None:
    found = [measure(operands, machine(threshold)) for threshold in (1e-6, 1e-3, 1e-2, 0.1)]
    kept, errors = [one.kept for one in found], [one.output for one in found]
    assert kept == sorted(kept, reverse=True)
    assert errors == sorted(errors)
    assert kept[0] > kept[-1]


def test_a_threshold_that_ends_nothing_that_counts_has_the_error_of_rounding(operands: list[Operands]) -> None:
    whole, ended = measure(operands, None), measure(operands, machine(1e-9))
    assert whole.kept == 1.0
    assert whole.selected == whole.output
    # Dropped probabilities are under 1e-9 each; what is left is rounded alike.
    assert abs(ended.output - whole.output) <= 90 * 1e-9 + 1e-6


def test_every_row_keeps_its_largest_key(operands: list[Operands]) -> None:
    for part in operands:
        kept = candidates(part, machine(0.5))
        assert kept.any(axis=-1).all()
        assert kept.sum() < kept.size


def test_only_groups_of_one_query_are_decoded() -> None:
    ops, arrays = [], {}
    rng = np.random.default_rng(0)
    for queries in (5, 1, 1):
        shape = {"layer": 0, "heads": 2, "kv_heads": 2, "queries": queries, "keys": 7, "head_dim": 4}
        start = len(ops)
        ops += [QueryKey(**shape), Softmax(layer=0, heads=2, rows=queries, cols=7), ProbabilityValue(**shape, kept=7)]
        for index, name in ((start, "query"), (start, "key"), (start + 2, "value")):
            arrays[index, name] = rng.standard_normal(ops[index].operand_shape(name)).astype(np.float32)
    trace = Trace(tuple(ops), arrays, model="drawn", method="none")
    part = decoding_only(trace)
    assert [op.queries for op in part.ops if isinstance(op, QueryKey)] == [1, 1]
    rows = trace_rows(part)
    assert [row.query.shape for row in rows] == [(2, 1, 4)] * 2
    assert (rows[0].value == arrays[5, "value"]).all()
    assert len(trace_rows(trace)) == 2


def test_the_page_measures_the_preset() -> None:
    assert load_config("topsieve").successor.termination_threshold == PRESET_THRESHOLD
    assert machine(PRESET_THRESHOLD) == load_config("topsieve")


@pytest.mark.full
def test_the_page_is_what_is_measured(tmp_path: Path) -> None:
    write_page(tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
