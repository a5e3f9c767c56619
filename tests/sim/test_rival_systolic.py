"""The systolic closed form is an array stepped clock by clock, and SCALE-Sim."""

from __future__ import annotations

import csv
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topsieve_sim.rivals.systolic import Dataflow, array_shape, systolic_cycles

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "data" / "scalesim" / "cycles.csv"
# A Python that has scalesim and the numpy it needs; the committed counts stand in where there is none.
SCALESIM_PYTHON = os.environ.get("TOPSIEVE_SCALESIM_PYTHON")


def golden_rows() -> list[dict[str, str]]:
    with GOLDEN.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def closed_form(row: dict[str, str]) -> int:
    m, n, k, rows, columns = (int(row[name]) for name in ("m", "n", "k", "array_rows", "array_columns"))
    return systolic_cycles(m, n, k, rows, columns, Dataflow(row["dataflow"]))


def test_the_closed_form_is_scalesims_count():
    rows = golden_rows()
    assert len({(row["m"], row["n"], row["k"]) for row in rows}) >= 50
    assert {row["dataflow"] for row in rows} == {flow.value for flow in Dataflow}
    assert {row["stall_cycles"] for row in rows} == {"0"}
    assert [closed_form(row) for row in rows] == [int(row["total_cycles"]) for row in rows]


@pytest.mark.skipif(not SCALESIM_PYTHON, reason="TOPSIEVE_SCALESIM_PYTHON names no Python with scalesim")
def test_scalesim_itself_counts_the_same(tmp_path):
    """New shapes on every call of the machine that has it."""
    random = np.random.default_rng()
    lines = ["dataflow,array_rows,array_columns,m,n,k"]
    for flow in Dataflow:
        lines += [f"{flow.value},5,6,{m},{n},{k}" for m, n, k in random.integers(1, 40, (4, 3))]
    wanted = tmp_path / "wanted.csv"
    wanted.write_text("\n".join(lines) + "\n")
    ran = subprocess.run(
        [str(SCALESIM_PYTHON), ROOT / "scripts" / "scalesim_cycles.py", wanted],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = list(csv.DictReader(ran.stdout.splitlines()))
    assert len(rows) == 12
    for row in rows:
        assert closed_form(row) == int(row["total_cycles"]) - int(row["stall_cycles"]), row


def stepped_output_stationary(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, int]:
    """One fold, clocked: operands enter skewed at the left and at the top and move on; every element accumulates."""
    rows, depth = a.shape
    columns = b.shape[1]
    right, down = np.zeros((rows, columns)), np.zeros((rows, columns))
    total = np.zeros((rows, columns))
    work_left = np.full((rows, columns), depth)
    cycle = 0
    while work_left.any():
        right[:, 1:], down[1:] = right[:, :-1].copy(), down[:-1].copy()
        for row in range(rows):
            at = cycle - row
            right[row, 0] = a[row, at] if 0 <= at < depth else 0
        for column in range(columns):
            at = cycle - column
            down[0, column] = b[at, column] if 0 <= at < depth else 0
        total += right * down
        here = cycle - np.add.outer(np.arange(rows), np.arange(columns))
        work_left -= (here >= 0) & (here < depth)
        cycle += 1
    return total, cycle


def stepped_stationary(stationary: np.ndarray, streamed: np.ndarray) -> tuple[np.ndarray, int]:
    """One fold, clocked: [depth, columns] is shifted in, [count, depth] streams from the left, sums leave at the bottom."""
    depth, columns = stationary.shape
    count = streamed.shape[0]
    held = np.zeros((depth, columns))
    cycle = 0
    for line in stationary[::-1]:
        held[1:], held[0] = held[:-1].copy(), line
        cycle += 1
    np.testing.assert_array_equal(held, stationary)
    right, sums = np.zeros((depth, columns)), np.zeros((depth, columns))
    result = np.zeros((count, columns))
    start, left = cycle, count * columns
    while left:
        right[:, 1:] = right[:, :-1].copy()
        for row in range(depth):
            at = cycle - start - row
            right[row, 0] = streamed[at, row] if 0 <= at < count else 0
        sums[1:] = sums[:-1].copy()
        sums[0] = 0
        sums += right * held
        for column in range(columns):
            at = cycle - start - (depth - 1) - column
            if 0 <= at < count:
                result[at, column] = sums[-1, column]
                left -= 1
        cycle += 1
    return result, cycle


def padded(block: np.ndarray, rows: int, columns: int) -> np.ndarray:
    whole = np.zeros((rows, columns))
    whole[: block.shape[0], : block.shape[1]] = block
    return whole


@given(
    m=st.integers(1, 9),
    n=st.integers(1, 9),
    k=st.integers(1, 9),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    dataflow=st.sampled_from(list(Dataflow)),
    seed=st.integers(0, 1000),
)
def test_the_closed_form_is_the_stepped_array(m, n, k, rows, columns, dataflow, seed):
    """Fold after fold on the real numbers: the product comes out, in as many cycles; the last is not counted."""
    random = np.random.default_rng(seed)
    a, b = random.integers(-9, 10, (m, k)).astype(float), random.integers(-9, 10, (k, n)).astype(float)
    product, cycles = np.zeros((m, n)), 0
    if dataflow is Dataflow.OUTPUT_STATIONARY:
        for i in range(0, m, rows):
            for j in range(0, n, columns):
                left, top = a[i : i + rows], b[:, j : j + columns]
                block, took = stepped_output_stationary(padded(left, rows, k), padded(top, k, columns))
                product[i : i + rows, j : j + columns] = block[: left.shape[0], : top.shape[1]]
                cycles += took
    elif dataflow is Dataflow.WEIGHT_STATIONARY:
        for depth in range(0, k, rows):
            for j in range(0, n, columns):
                weights, stream = b[depth : depth + rows, j : j + columns], a[:, depth : depth + rows]
                block, took = stepped_stationary(padded(weights, rows, columns), padded(stream, m, rows))
                product[:, j : j + columns] += block[:, : weights.shape[1]]
                cycles += took
    else:
        for depth in range(0, k, rows):
            for i in range(0, m, columns):
                inputs, stream = a[i : i + columns, depth : depth + rows].T, b[depth : depth + rows].T
                block, took = stepped_stationary(padded(inputs, rows, columns), padded(stream, n, rows))
                product[i : i + columns] += block[:, : inputs.shape[1]].T
                cycles += took
    np.testing.assert_array_equal(product, a @ b)
    assert systolic_cycles(m, n, k, rows, columns, dataflow) == cycles - 1


@given(st.integers(1, 5000))
def test_the_array_holds_all_multipliers(multipliers):
    rows, columns = array_shape(multipliers)
    assert rows * columns == multipliers
    assert rows <= columns
    assert not any(multipliers % size == 0 for size in range(rows + 1, int(multipliers**0.5) + 1))
