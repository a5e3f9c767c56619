"""The README's snippet runs, its links and those of docs lead somewhere, and its table of folders is the folders."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from system.command_line import ROOT, environment
from system.documented_commands import PAGES, README


def test_demo_is_the_documented_comparison():
    planned = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--model minilm --methods dense,random,spatten,tome,evit,powerbert," in planned
    assert "--keep 0.5 --accelerator spatten" in planned


def test_the_snippet_runs(tmp_path):
    (snippet,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / README).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    ran = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^\d+ cycles, \d+ bytes$", ran.stdout, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        assert "://" in target or ((ROOT / page).parent / target).exists(), (page, target)


def test_folders_of_the_table_of_contents_are_the_folders():
    listed = set(re.findall(r"^\| \[([a-z_/]+)\]", (ROOT / README).read_text(encoding="utf-8"), re.MULTILINE))
    wanted = {"software/topsieve", "sim/topsieve_sim", "rtl/topsieve_rtl", "kernels/topsieve_kernels"}
    assert wanted | {"tests", "docs", "scripts"} <= listed
