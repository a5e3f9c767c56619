"""The documentation site: every page has its place, and the site builds without a warning."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from system.command_line import ROOT, environment


def pages_of(entries) -> list[str]:
    """File names in a navigation tree."""
    found = []
    for entry in entries:
        target = next(iter(entry.values())) if isinstance(entry, dict) else entry
        found += pages_of(target) if isinstance(target, list) else [target]
    return found


def test_every_page_is_in_the_navigation_once():
    made = {"index.md", "reference/index.md"}
    placed = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(placed) == sorted(made | {page.name for page in (ROOT / "docs").glob("*.md")})


@pytest.mark.full
def test_the_site_builds_without_a_warning(tmp_path):
    """Broken links and docstrings whose parameters are not those of the function are warnings."""
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**environment(), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    reference = tmp_path / "reference"
    assert "One group on an idle machine" in (reference / "topsieve_sim.closed_loop.loop.html").read_text(
        encoding="utf-8"
    )
    assert (tmp_path / "index.html").is_file()
