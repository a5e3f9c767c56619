"""Accelergy tables: written with the model's own numbers, read back as a technology of its own."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import yaml

from topsieve_sim.arch import load_config, preset_names
from topsieve_sim.energy import (
    Action,
    Component,
    action_energies_pj,
    area_um2,
    reference_yaml,
    technology_digest,
    write_accelergy,
)
from topsieve_sim.engine import simulate
from topsieve_sim.errors import InputError
from topsieve_sim.report import Report
from topsieve_sim.validation.workloads import Encoder, bert_trace

NAME = re.compile(r"system_top_level\.([a-z_]+)\[1\.\.1\]")


@pytest.mark.parametrize("preset", preset_names())
def test_the_files_say_what_the_model_says(preset: str, tmp_path: Path) -> None:
    config = load_config(preset)
    ert_path, art_path = write_accelergy(config, tmp_path / "tables")
    ert, art = (yaml.safe_load(path.read_text()) for path in (ert_path, art_path))
    assert ert["ERT"]["version"] == art["ART"]["version"] == "0.4"
    energies = {
        (NAME.fullmatch(table["name"])[1], action["name"]): action["energy"]  # type: ignore[index]
        for table in ert["ERT"]["tables"]
        for action in table["actions"]
    }
    expected = {(part.value, action.value): pj for (part, action), pj in action_energies_pj(config).items()}
    assert energies == expected
    areas = {NAME.fullmatch(table["name"])[1]: table["area"] for table in art["ART"]["tables"]}  # type: ignore[index]
    assert areas == {part.value: value for part, value in area_um2(config).items()}
    assert math.isclose(math.fsum(areas.values()), math.fsum(area_um2(config).values()), rel_tol=1e-9)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken"):
        write_accelergy(load_config("tiny"), tmp_path / "taken")


def report_under(technology: str) -> Report:
    return simulate(bert_trace(Encoder(2, 2), 12), load_config("spatten", [f"technology={technology}"]))


def test_tables_handed_back_give_the_same_report(tmp_path: Path) -> None:
    """As one file and as a folder; totals are the sums of their parts to 1e-9."""
    config = load_config("spatten")
    (tmp_path / "own.yaml").write_text(reference_yaml(config))
    write_accelergy(config, tmp_path / "folder")
    native = report_under(config.technology)
    for place in ("own.yaml", "folder"):
        read = report_under(str(tmp_path / place))
        assert read.energy_pj == native.energy_pj
        assert read.area_um2 == native.area_um2
        parts = math.fsum(value for actions in read.energy_pj.values() for value in actions.values())
        assert math.isclose(parts, read.energy_total_pj, rel_tol=1e-9)
        assert math.isclose(math.fsum(read.area_um2.values()), read.area_total_um2, rel_tol=1e-9)


def changed(text: str, component: str, action: str, energy: float) -> str:
    data = yaml.safe_load(text)
    for table in data["ERT"]["tables"]:
        if f".{component}[" in table["name"]:
            for entry in table["actions"]:
                entry["energy"] = energy if entry["name"] == action else entry["energy"]
    return yaml.safe_dump(data)


def test_a_changed_entry_changes_its_energy_and_no_other(tmp_path: Path) -> None:
    text = reference_yaml(load_config("spatten"))
    native = report_under("40nm")
    file = tmp_path / "own.yaml"
    file.write_text(changed(text, "dot_product", "multiply", 100.0))
    own = report_under(str(file))
    count = own.energy_pj["dot_product"].pop("multiply") / 100.0
    assert count == pytest.approx(native.macs / 2)
    native.energy_pj["dot_product"].pop("multiply")
    assert own.energy_pj == native.energy_pj
    before = technology_digest(str(file))
    file.write_text(changed(text, "dot_product", "multiply", 101.0))
    assert technology_digest(str(file)) != before


def test_instances_have_their_areas_and_leaks_and_strangers_are_ignored(tmp_path: Path) -> None:
    """A component of another part of the system, or an action that is not counted, is nothing to this machine."""
    data = yaml.safe_load(reference_yaml(load_config("tiny")))
    for kind in ("ERT", "ART"):
        for table in data[kind]["tables"]:
            table["name"] = table["name"].replace("system_top_level.", "chip.core[1..2].").replace("[1..1]", "[1..3]")
        data[kind]["tables"].append({"name": "chip.noc", "area": 1.0, "actions": [{"name": "hop", "energy": 1.0}]})
        data[kind]["version"] = 0.4
    data["ERT"]["tables"][0]["actions"].append({"name": "idle", "energy": 7.0})
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(data))
    own, native = load_config("tiny", [f"technology={tmp_path / 'own.yaml'}"]), load_config("tiny")
    for part, area in area_um2(native).items():
        assert area_um2(own)[part] == pytest.approx(3 * area)
    energies, plain = action_energies_pj(own), action_energies_pj(native)
    for (component, action), energy in plain.items():
        times = 3 if action is Action.LEAK_CYCLE else 1
        assert energies[component, action] == pytest.approx(times * energy)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("- name: multiply", "- name: divide", r"ERT.dot_product.multiply: required entry is missing"),
        ("- name: add", "- name: multiply", r"ERT.dot_product.multiply: named twice"),
        ("system_top_level.fetcher[1..1]", "system_top_level.fetch[1..1]", r"ERT.fetcher.transfer_bit: required"),
        ("ART:", "AREA:", r"ART: required table is missing"),
        ("version: '0.4'", "version: '9'", r"ERT.version: unknown version \(got '9'\); allowed: 0.3, 0.4"),
        ("energy: 3.92", "energy: -1", r"ERT.dram.read_bit: not a number \(got -1.*\); allowed: >= 0"),
        ("energy: 3.92", "energy: much", r"ERT.dram.read_bit: not a number \(got 'much'\)"),
        ("  tables:", "  table:", r"ERT.tables: must be a list of mappings"),
        ("ERT:", "{", r"not valid YAML"),
    ],
)
def test_tables_that_are_wrong_name_the_entry(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = reference_yaml(load_config("tiny"))
    assert old in text
    file = tmp_path / "own.yaml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        action_energies_pj(load_config("tiny", [f"technology={file}"]))


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        area_um2(load_config("tiny", [f"technology={tmp_path / 'none.yaml'}"]))
    with pytest.raises(InputError, match=r"ERT\.yaml: cannot read"):
        area_um2(load_config("tiny", [f"technology={tmp_path}"]))
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(InputError, match="must hold a mapping"):
        area_um2(load_config("tiny", [f"technology={tmp_path / 'list.yaml'}"]))


def test_a_table_of_primitives_may_be_the_users(tmp_path: Path) -> None:
    row = (
        "{primitive: multiplier, action: multiply, value: 1.0, unit: pJ, width_bits: 8, scaling: product, node_nm: 22, "
        "status: cited, source: data sheet of the library}"
    )
    file = tmp_path / "22nm.yaml"
    file.write_text(f"technology: 22nm\nbase: 28nm\nrows: [{row}]\n")
    config = load_config("spatten", [f"technology={file}"])
    assert action_energies_pj(config)[Component.DOT_PRODUCT, Action.MULTIPLY] == pytest.approx(12 * 12 / 64)
    file.write_text(f"technology: 22nm\nrows: [{row}]\n")
    with pytest.raises(InputError, match="missing"):
        action_energies_pj(config)
