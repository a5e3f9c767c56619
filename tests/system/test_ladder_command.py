"""`topsieve ladder`: the page where it is asked for, and one line where it cannot be written."""

from __future__ import annotations

import pytest

from topsieve.cli import main
from topsieve.cli.commands import ladder as command
from topsieve_sim.ladder import climb


@pytest.fixture
def one_workload(monkeypatch):
    """The command on a workload that takes a second."""
    names = ["bert-base-31"]
    monkeypatch.setattr("topsieve_sim.ladder.climb", lambda progress: climb(names, in_loop=False, progress=progress))


@pytest.mark.usefixtures("one_workload")
def test_tables_pages_and_json(tmp_path, capfd):
    assert main(["ladder"]) == 0
    shown = capfd.readouterr()
    assert "keys end early" in shown.out
    assert "1 of 1" in shown.err
    page = tmp_path / "ladder.md"
    assert main(["ladder", "--out", str(page)]) == 0
    assert "| + keys end early |" in page.read_text(encoding="utf-8")
    assert main(["ladder", "--json"]) == 0
    assert '"workload": "bert-base-31"' in capfd.readouterr().out


def test_a_folder_is_no_page(tmp_path, capfd):
    assert main(["ladder", "--out", str(tmp_path)]) == 2
    assert "--out" in command.__doc__
    assert str(tmp_path) in capfd.readouterr().err
