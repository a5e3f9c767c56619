"""Every command and every snippet in the README and on the pages about installing and the command line runs as written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from system.command_line import ROOT, environment

PAGES = ("README.md", "docs/cli.md", "docs/install.md")
# What a test cannot run inside itself: `make` is asked whether it knows the target and what it would do.
MAKE = re.compile(r"`((?:[A-Z]+=\S+ )?make [a-z-]+)`|^(make [a-z-]+)$", re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def shell_lines(page: str) -> list[str]:
    return [line for block in blocks(page, "sh") for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the commands run: an empty folder, so that relative results stay out of the checkout."""
    return tmp_path_factory.mktemp("readme")


def test_pages_have_commands():
    assert [line for line in shell_lines("README.md") if line.startswith("make")] == ["make demo", "make test"]
    assert sum(line.startswith("topsieve ") for page in PAGES for line in shell_lines(page)) >= 10


@pytest.mark.parametrize("page", ["README.md", "docs/cli.md"])
def test_every_topsieve_command_runs(page, folder):
    """In the order of the page, because one may read what another wrote."""
    for line in shell_lines(page):
        name, *rest = shlex.split(line)
        if name == "make":
            continue
        assert name == "topsieve", line
        ran = subprocess.run(
            [sys.executable, "-m", "topsieve.cli", *rest],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ran.returncode == 0, (line, ran.stderr)
        assert ran.stdout


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_exists(page):
    for quoted, alone in MAKE.findall((ROOT / page).read_text(encoding="utf-8")):
        words = shlex.split(quoted or alone)
        target = words[words.index("make") + 1]
        # MAKEFLAGS of a `make test` around this test would reach the inner make.
        clean = {key: value for key, value in os.environ.items() if key not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
        planned = subprocess.run(
            ["make", "-n", target], cwd=ROOT, env=clean, capture_output=True, text=True, check=False
        )
        assert planned.returncode == 0, (page, target, planned.stderr)
        assert planned.stdout


def test_demo_is_the_documented_comparison():
    planned = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--model minilm --methods dense,random,spatten,tome,evit,powerbert," in planned
    assert "--keep 0.5 --accelerator spatten" in planned


def test_every_python_snippet_runs(folder):
    (snippet,) = blocks("README.md", "python")
    ran = subprocess.run(
        [sys.executable, "-c", snippet], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^\d+ cycles, \d+ bytes$", ran.stdout, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        assert ((ROOT / page).parent / target).exists(), (page, target)


def test_folders_of_the_table_of_contents_are_the_folders():
    listed = set(re.findall(r"^\| \[([a-z_/]+)\]", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    wanted = {"software/topsieve", "sim/topsieve_sim", "rtl/topsieve_rtl", "kernels/topsieve_kernels"}
    assert wanted | {"tests", "docs", "scripts"} <= listed
