# amaranth: UnusedElaboratable=no
"""An emitted unit works without Python, tells where it comes from, and its testbench can fail."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from amaranth import Module, unsigned

from rtl.harness import engine_or_skip, tool_or_skip
from rtl.harness.pipeline_unit import PipelineUnit
from topsieve_rtl.cosim import Case, Channel, Design, Engine, only_valid_lanes, run
from topsieve_rtl.stream import Beat, CreditPipeline, Datapath, Element, Fifo
from topsieve_rtl.tools import executable, package_folder
from topsieve_rtl.verilog.convert import rtlil_text
from topsieve_rtl.verilog.package import emit_unit, name_map
from topsieve_rtl.verilog.testbench import testbench_text as bench_text
from topsieve_rtl.verilog.testbench import vectors_text
from topsieve_sim import __version__
from topsieve_sim.arch import load_config
from topsieve_sim.errors import InputError

TINY = load_config("tiny")
COMMAND = "topsieve verilog affine --accelerator tiny"
TOP = "topsieve_affine_tiny"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return emit_unit(PipelineUnit(), TINY, tmp_path_factory.mktemp("package"), command_line=COMMAND)


def simulate(folder: Path, top: str = TOP) -> subprocess.CompletedProcess[str]:
    compiler, simulator = (tool_or_skip(lambda name=name: executable(name)) for name in ("iverilog", "vvp"))
    sources = [f"{top}.v", f"{top}_tb.v"]
    subprocess.run([compiler, "-g2005", "-s", f"{top}_tb", "-o", "bench.vvp", *sources], cwd=folder, check=True)
    return subprocess.run([simulator, "bench.vvp"], cwd=folder, capture_output=True, text=True, check=False)


def test_the_testbench_passes(package):
    done = simulate(package.folder)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("PASS: 20 cases, ")


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [("credits_used != 3'h4", "credits_used != 3'h3", "i valid=1"), (r"\$1  + 1'h1", r"\$1  + 2'h2", "o__payload=")],
    ids=["one credit less", "one bit wrong"],
)
def test_the_testbench_fails_on_a_planted_error(tmp_path, right, wrong, complaint):
    emit_unit(PipelineUnit(), TINY, tmp_path, command_line=COMMAND)
    design = tmp_path / f"{TOP}.v"
    text = design.read_text()
    assert right in text
    design.write_text(text.replace(right, wrong))
    done = simulate(tmp_path)
    assert done.returncode == 1
    assert "FAIL: " in done.stdout
    assert complaint in done.stdout


def test_equal_arguments_give_equal_bytes(package, tmp_path):
    again = emit_unit(PipelineUnit(), TINY, tmp_path / "new" / "folder", command_line=COMMAND)
    assert [path.name for path in again.files] == [path.name for path in package.files]
    for ours, theirs in zip(package.files, again.files, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    assert {path.name for path in again.folder.iterdir()} == {path.name for path in again.files}


def test_another_seed_gives_other_vectors(package, tmp_path):
    emit_unit(PipelineUnit(), TINY, tmp_path, command_line=COMMAND, seed=1)
    name = f"{TOP}_vectors.hex"
    assert (tmp_path / name).read_bytes() != (package.folder / name).read_bytes()


def test_files_say_where_they_come_from_and_nothing_of_this_machine(package):
    for path in package.files:
        text = path.read_text()
        assert str(Path.home()) not in text
        assert str(Path(__file__).parents[2]) not in text
        if path.suffix == ".v":
            assert text.startswith(f"// {PipelineUnit.summary}\n// Topsieve {__version__}, configuration tiny, ")
            assert TINY.digest in text
            assert COMMAND in text


def test_every_module_name_starts_with_the_top_name(package):
    modules = re.findall(r"^module (\S+?)\(", (package.folder / f"{TOP}.v").read_text(), re.MULTILINE)
    assert sorted(modules) == [TOP, f"{TOP}__datapath", f"{TOP}__fifo"]


def test_the_configuration_reads_back(package):
    assert load_config(package.folder / f"{TOP}.yaml") == TINY


def test_the_core_file_names_files_that_exist(package):
    text = (package.folder / f"{TOP}.core").read_text()
    assert text.startswith("CAPI=2:\n")
    core = yaml.safe_load(text.removeprefix("CAPI=2:\n"))
    assert set(core["targets"]) == {"default", "lint", "sim", "synth"}
    for files in core["filesets"].values():
        for entry in files["files"]:
            assert (package.folder / (entry if isinstance(entry, str) else next(iter(entry)))).exists()


def test_the_readme_lists_every_port(package):
    text = (package.folder / "README.md").read_text()
    for note in PipelineUnit.port_notes.values():
        assert note in text
    assert PipelineUnit.latency_note in text
    assert COMMAND in text


def test_verilator_lints_the_verilog(package):
    perl, root = tool_or_skip(lambda: executable("perl")), tool_or_skip(lambda: package_folder("verilator"))
    command = [perl, str(root / "bin" / "verilator"), "--lint-only", "-Wno-WIDTH", "--top-module", TOP, f"{TOP}.v"]
    done = subprocess.run(
        command,
        cwd=package.folder,
        env={"VERILATOR_ROOT": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_name_map_places_every_field():
    names = name_map(Design(Fifo(Beat(Element(5, 3, score_signed=True), 2), 2), "unit"))
    payload = next(port for port in names["ports"] if port["name"] == "i__payload")
    assert [(f["path"], f["lowest_bit"], f["bits"], f["signed"]) for f in payload["fields"]] == [
        ("lanes[0].score", 0, 5, True),
        ("lanes[0].index", 5, 3, False),
        ("lanes[1].score", 8, 5, True),
        ("lanes[1].index", 13, 3, False),
        ("count", 16, 2, False),
        ("last", 18, 1, False),
    ]
    json.dumps(names)


def test_the_testbench_ignores_bits_that_may_hold_anything(tmp_path):
    beat = ((3, 9), 1, 1)
    design = Design(Fifo(Beat(unsigned(4), 2), 2), "unit", {"o": only_valid_lanes})
    case = Case.through([beat], [0], [], 1)
    for expected, code in ((((3, None), 1, 1), 0), (((3, 8), 1, 1), 1)):
        vectors = vectors_text(design, [(case, {"i": Channel([0], [beat]), "o": Channel([1], [expected])})])
        (tmp_path / "unit.v").write_text(design.verilog)
        (tmp_path / "unit_vectors.hex").write_text(vectors)
        (tmp_path / "unit_tb.v").write_text(
            bench_text(design, "unit_tb", "", "unit_vectors.hex", vectors.count("\n"), 1)
        )
        assert simulate(tmp_path, "unit").returncode == code


class ThreeWay(Datapath):
    """One of three functions, by a parallel multiplexer."""

    def __init__(self):
        super().__init__(unsigned(4), unsigned(4), 0)

    def elaborate(self, platform):
        m = Module()
        with m.Switch(self.i[:2]):
            for case, value in enumerate((1, self.i, ~self.i)):
                with m.Case(case):
                    m.d.comb += self.o.eq(value)
        return m


def test_icarus_reads_multiplexers_of_many_inputs():
    engine = engine_or_skip(Engine.ICARUS)
    design = Design(CreditPipeline(ThreeWay(), 2), "three_way")
    assert "function" in design.verilog
    beats = list(range(16))
    (log,) = run(design, [Case.through(beats, [0] * 16, [], 16)], engine)
    assert log.channels["o"].beats == [(1, beat, ~beat & 15, 0)[beat & 3] for beat in beats]


@pytest.mark.parametrize("name", ["", "Unit", "two__words", "a-b"])
def test_module_names_are_checked(name):
    with pytest.raises(InputError, match="malformed module name"):
        rtlil_text(Fifo(unsigned(2), 1), name)


def test_wrong_requests_are_one_line(tmp_path):
    with pytest.raises(InputError, match="cases: too few cases"):
        emit_unit(PipelineUnit(), TINY, tmp_path, command_line=COMMAND, cases=0)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="cannot create the folder"):
        emit_unit(PipelineUnit(), TINY, blocked / "below", command_line=COMMAND)
