"""The bench runs, its reference agrees with the engine, and the engine is far faster than it."""

from __future__ import annotations

import re

import pytest

from topsieve_sim import bench


@pytest.mark.full
def test_the_bench_prints_rates_and_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main()
    text = capsys.readouterr().out
    rows = re.findall(r"^(gpt2-\S+|stepped reference) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$", text, re.MULTILINE)
    assert [row[0] for row in rows] == [*bench.WORKLOADS, "stepped reference"]
    assert float(rows[-1][4]) == 1.0
    # Both rates are taken in this run, so the ratio stands on a slow or busy processor too.
    assert all(float(row[4]) > 10 for row in rows[:-1])
