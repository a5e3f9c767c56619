"""Every kernel compiles for Ampere and Hopper without spills, within shared memory, on the tensor cores."""

import json
import os
import subprocess
import sys

import pytest

# Tiles of at least 64 rows of 16-bit numbers take Hopper's warpgroup instruction.
WARPGROUP = (
    "score_sum_fp16",
    "score_sum_bf16",
    "forward_fp16",
    "forward_bf16",
    "best_partner_fp16",
    "best_partner_bf16",
)


# What waits for memory or for its own matrix unit needs a second program beside it that does not.
SHARES_A_MULTIPROCESSOR = (
    "score_sum_fp16_d64",
    "score_sum_fp16_d128",
    "one_pass_fp16_d64",
    "decode_fp16_d64",
    "decode_fp16_d128",
    "plane_scores",
    "gather",
)


# Heads of 64 channels are not among them for planes: those loops issue for up to a third longer than their bytes take.
KEEPS_UP_WITH_MEMORY = (
    "decode_",
    *(
        f"{kernel}_d{width}"
        for kernel in ("plane_scores_msb", "plane_scores_lsb", "weighted_value")
        for width in (128, 256)
    ),
    "select_collect_8192_sample_2048",
)
# NVIDIA H100 SXM data sheet: 3.35 TB/s; 132 multiprocessors at up to 1.83 GHz (white paper).
HOPPER_BYTES_PER_CYCLE = 3.35e12 / (132 * 1.83e9)


def compiled(*arguments):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_DEFAULT_FP_FUSION"] = "1"
    command = [sys.executable, "-m", "topsieve_kernels.ahead_of_time", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(rows):
    for row in rows:
        assert not row["spilled"], row
        assert row["shared_bytes"] <= row["limit"], row
        assert 0 < row["registers"] <= 255, row
        count = row["instructions"]
        # Nothing is added to memory by several programs: order, and so every bit, is fixed.
        assert count["RED"] == 0, row
        assert count["ATOM"] == 0, row
        if row["matrix"]:
            assert sum(count[name] for name in ("HGMMA", "IGMMA", "HMMA", "IMMA")) > 0, row
        assert row["resident_programs"] >= 1, row
        if row["capability"] == 90 and row["case"].startswith(KEEPS_UP_WITH_MEMORY):
            assert row["loop_bytes_per_cycle"] > HOPPER_BYTES_PER_CYCLE, row
        if row["capability"] == 90 and row["case"].startswith(SHARES_A_MULTIPROCESSOR):
            assert row["resident_programs"] >= 2, row
        if row["capability"] == 90 and row["case"].startswith(WARPGROUP) and "d256" not in row["case"]:
            assert count["HGMMA"] > 0, row


def test_one_configuration_of_every_kernel_for_hopper(interpreter):
    rows = compiled("--capability", "90")
    check(rows)
    kernels = {row["case"].split("_fp16")[0].split("_d128")[0] for row in rows}
    assert {"score_sum", "forward", "decode", "plane_scores_msb", "plane_scores_lsb", "weighted_value"} <= kernels
    assert len(rows) >= 14


@pytest.mark.full
@pytest.mark.parametrize("capability", ["80", "90"])
def test_every_shipped_configuration(interpreter, capability):
    rows = compiled("--capability", capability, "--all")
    assert len(rows) > 80
    check(rows)


@pytest.mark.full
def test_integers_that_happen_to_be_one(interpreter):
    """Triton makes constants of arguments that are 1, and constants may not be assigned again: another program."""
    rows = compiled("--capability", "90", "--ones")
    assert len(rows) >= 14
    assert not any(row["spilled"] for row in rows)


def test_a_spilling_configuration_is_seen(interpreter):
    """A tile of 64 by 256 numbers is too much for one warp: the check must say so, or it could not fail."""
    script = (
        "import dataclasses, topsieve_kernels.ahead_of_time as a\n"
        "case = next(c for c in a.cases(80) if c.name == 'combine_d256')\n"
        "case = dataclasses.replace(case, num_warps=1, constants=case.constants | {'TILE_PARTS': 64})\n"
        "found = a.compile_case(case, 80)\n"
        "assert found.spilled, found\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], env=environment, check=True)
