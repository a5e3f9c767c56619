"""The bench runs, its reference agrees with the engine, and the engine is far faster than it."""

from __future__ import annotations

import re

import pytest

from topsieve_sim import bench


@pytest.mark.full
def test_the_bench_prints_rates_and_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main()
    text = capsys.readouterr().out
    free, in_loop = text.split("in closed loop")
    rows = re.findall(r"^(gpt2-\S+|stepped reference) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$", free, re.MULTILINE)
    assert [row[0] for row in rows] == [*bench.WORKLOADS, "stepped reference"]
    assert float(rows[-1][4]) == 1.0
    # Both rates are taken in this run, so the ratio stands on a slow or busy processor too.
    assert all(float(row[4]) > 10 for row in rows[:-1])
    closed = re.findall(
        r"^(gpt2-\S+|bert-base-384(?: layer)?) +(\d+) +[\d.]+ +[\d.]+ +([\d.]+)$", in_loop, re.MULTILINE
    )
    assert [row[0] for row in closed] == ["bert-base-384 layer", "bert-base-384", "gpt2-small-wikitext2-pruned"]
    assert int(closed[1][1]) == 12 * int(closed[0][1])
    assert all(float(row[2]) > 0.5 for row in closed)
