"""The Accelergy tables hold the model's own numbers in the published format."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import yaml

from topsieve_sim.arch import load_config, preset_names
from topsieve_sim.energy import action_energies_pj, area_um2, write_accelergy
from topsieve_sim.errors import InputError

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
