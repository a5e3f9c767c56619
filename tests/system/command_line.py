"""Runs the installed command line as a user does: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    """The environment of a user's shell: no debug switch, a fixed width, no colours."""
    kept = {key: value for key, value in os.environ.items() if key != "TOPSIEVE_DEBUG"}
    return {**kept, "COLUMNS": "160", "NO_COLOR": "1", **more}


def command(*arguments: str | Path) -> list[str]:
    """The argument vector of `topsieve ARGUMENTS` in this environment."""
    return [sys.executable, "-m", "topsieve.cli", *map(str, arguments)]


def topsieve(*arguments: str | Path, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `topsieve ARGUMENTS` to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=cwd, env=environment(**more), timeout=300, check=False
    )


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2 and one line on stderr that holds `words`; nothing that looks like a traceback anywhere."""
    assert result.returncode == 2, (result.returncode, result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.startswith("topsieve: ")]
    assert len(lines) == 1, result.stderr
    assert lines == result.stderr.splitlines()[-1:], result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert "internal error" not in result.stderr
    for word in words:
        assert word in lines[0], (word, lines[0])
