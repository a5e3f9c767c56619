"""Every notebook runs from top to bottom, at a reduced size, and has a Jupyter file with the same cells and no outputs."""

import json
import runpy
from pathlib import Path

import matplotlib
import pytest
import torch

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
jupyter = runpy.run_path(str(ROOT / "scripts" / "notebooks.py"))["jupyter"]

# Two threads on tensors this small only wait for each other.
torch.set_num_threads(1)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 7


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(notebook, tmp_path, monkeypatch, capsys):
    """In this process, because loading torch takes longer than most of them."""
    from matplotlib import pyplot

    matplotlib.use("Agg")
    monkeypatch.setenv("TOPSIEVE_SMALL_NOTEBOOKS", "1")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(notebook), run_name="__main__")
    assert pyplot.get_fignums()
    pyplot.close("all")
    assert "cycles" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_jupyter_file_is_the_script(notebook):
    written = notebook.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert written == jupyter(notebook.read_text(encoding="utf-8"))
    content = json.loads(written)
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    # The last words invite a change, and the last cell is what to change.
    assert any(line.startswith("## Yours") for line in content["cells"][-2]["source"])
    assert content["cells"][-1]["cell_type"] == "code"
