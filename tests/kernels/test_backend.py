"""The choice of backend, and the package without Triton."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import topsieve_kernels
from topsieve_kernels.backend import ceil_div, choose, next_power_of_2, rows_last

PACKAGE = Path(topsieve_kernels.__file__).parent


def python(script, **variables):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | variables
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], env=environment, capture_output=True, text=True
    )


def test_cpu_tensors_choose_torch():
    assert choose("auto", torch.zeros(1)) == "torch"
    assert choose("torch", torch.zeros(1)) == "torch"


def test_triton_is_refused_on_cpu_outside_the_interpreter():
    done = python("import torch\nfrom topsieve_kernels.backend import choose\nchoose('triton', torch.zeros(1))")
    assert done.returncode == 1
    assert "ValueError: backend: 'triton' needs" in done.stderr or "is not installed" in done.stderr


def test_everything_runs_without_triton():
    script = """
import sys
sys.modules["triton"] = None
import torch
import topsieve_kernels as k
x = torch.randn(1, 2, 5, 8)
assert k.attention_importance(x, x, x).output.isfinite().all()
assert k.topk_select(torch.randn(2, 9), 3).indices.shape == (2, 3)
assert k.bipartite_merge(x[0], x[0], 1).tokens.shape == (2, 4, 8)
assert k.decode_gathered(x[:, :, 0], x, x, torch.tensor([[[0, 3]]])).output.shape == (1, 2, 8)
q, qs = k.quantise_rows(x[:, :, 0])
v, vs = k.quantise_rows(x)
assert k.decode_progressive(q, qs, k.pack_planes(v, vs), v, vs, threshold=0.5).output.isfinite().all()
try:
    k.topk_select(torch.randn(2, 9), 3, backend="triton")
except ValueError as error:
    print(error)
"""
    done = python(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "backend: 'triton' is not installed; allowed: 'auto', 'torch'\n"


def test_the_package_imports_torch_and_triton_only():
    allowed = {"torch", "triton", "topsieve_kernels"} | sys.stdlib_module_names
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert {name.split(".")[0] for name in names} <= allowed, (path.name, names)


@pytest.mark.parametrize("value", [1, 2, 3, 63, 64, 65])
def test_rounding_helpers(value):
    assert next_power_of_2(value) >= value > next_power_of_2(value) // 2
    assert ceil_div(value, 8) * 8 >= value > (ceil_div(value, 8) - 1) * 8


def test_rows_lie_in_reach_of_32_bits():
    """Kernels number elements of a head with 32 bits; rows that lie further apart are copied together."""
    near = torch.empty_strided((1, 2, 3, 4), (24, 4, 8, 1), device="meta")
    assert rows_last(near) is near
    far = torch.empty_strided((1, 2, 3, 4), (4, 4, 1 << 30, 1), device="meta")
    turned = torch.empty((1, 2, 4, 3), device="meta").mT
    for operand in (far, turned):
        assert rows_last(operand).stride() == (24, 12, 4, 1)
