"""Ctrl-C and full disks: what was finished stays, what was not leaves no trace, and the next run goes on."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.command_line import assert_refused, command, environment, topsieve
from topsieve.compare import method_folder

METHODS = ("dense", *(f"random:seed={seed}" for seed in range(1, 8)))


def arguments(model: Path, text: Path, out: Path) -> list[str]:
    return [
        "compare", "--model", str(model), "--methods", ",".join(METHODS), "--accelerator", "tiny",
        "--set", "capacity=64", "--text", str(text), "--out", str(out), "--json",
    ]  # fmt: skip


def finished_methods(out: Path) -> list[str]:
    """Methods with a result; each result and each file beside it is whole."""
    found = []
    for method in METHODS:
        folder = method_folder(out, method)
        if (folder / "result.json").exists():
            assert json.loads((folder / "result.json").read_text())["method"] == method
            json.loads((folder / "report.json").read_text())
            found.append(method)
    return found


def temporary_files(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.name.startswith(".")]


def interrupted_after(line_start: str, argv: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the command line and send it SIGINT as soon as stderr holds a line that starts so."""
    with subprocess.Popen(
        command(*argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        watchdog = threading.Timer(240, process.kill)
        watchdog.start()
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith(line_start):
                process.send_signal(signal.SIGINT)
        stdout = process.stdout.read()
        watchdog.cancel()
    return subprocess.CompletedProcess(argv, process.returncode, stdout, "".join(lines))


def test_interrupted_comparison_keeps_what_is_done_and_goes_on(tiny_model, text_file, tmp_path):
    argv = arguments(tiny_model, text_file, tmp_path / "out")
    stopped = interrupted_after("[3/", argv)
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stdout == ""
    assert "Traceback" not in stopped.stderr
    last = stopped.stderr.splitlines()[-1]
    done = finished_methods(tmp_path / "out")
    assert 2 <= len(done) < len(METHODS)
    assert last.startswith(f"topsieve: interrupted; {len(done)} of {len(METHODS)} methods are done and kept")
    assert temporary_files(tmp_path / "out") == []
    assert not (tmp_path / "out" / "comparison.json").exists()

    again = topsieve(*argv)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("kept from an earlier run") == len(done)
    whole = topsieve(*arguments(tiny_model, text_file, tmp_path / "whole"))
    assert again.stdout == whole.stdout


@pytest.mark.parametrize("moment", ["loading", "[1/"])
def test_interrupted_before_anything_is_done(moment, tiny_model, text_file, tmp_path):
    stopped = interrupted_after(moment, arguments(tiny_model, text_file, tmp_path / "out"))
    assert stopped.returncode == 130, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert stopped.stderr.splitlines()[-1].startswith(f"topsieve: interrupted; 0 of {len(METHODS)} methods")
    assert finished_methods(tmp_path / "out") == []
    assert temporary_files(tmp_path / "out") == []


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system; the limit on file sizes below covers the same code")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_full_disk_keeps_what_is_done(small_disk, tiny_model, text_file):
    out = small_disk / "out"
    result = topsieve(*arguments(tiny_model, text_file, out))
    assert_refused(result, "No space left on device", str(out))
    assert result.stdout == ""
    assert 1 <= len(finished_methods(out)) < len(METHODS)
    assert temporary_files(out) == []


def limited(argv: list[str], file_bytes: int) -> subprocess.CompletedProcess[str]:
    """Run the command line where no file may grow beyond `file_bytes`."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    return subprocess.run(
        command(*argv), capture_output=True, text=True, env=environment(), preexec_fn=limit, timeout=240, check=False
    )


def test_file_that_cannot_grow_is_not_left_half_written(tmp_path):
    out = tmp_path / "out"
    result = limited(["simulate", "gpt2-small-wikitext2-dense", "--out", str(out)], 1 << 14)
    assert_refused(result, "File too large", str(out))
    assert list(out.iterdir()) == []


def test_full_stdout_is_one_line():
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            command("config", "schema"), stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False
        )
    assert result.returncode == 2
    assert result.stderr == "topsieve: No space left on device\n"


def test_closed_pipe_is_silent():
    shell = f"{sys.executable} -m topsieve.cli config schema | true"
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=environment(), check=True)
    assert result.stderr == ""
