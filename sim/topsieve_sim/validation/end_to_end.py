"""Rows of SpAtten-e2e: Table IV and Figure 15, GPT-2-Medium with its FC layers on the arrays."""

from __future__ import annotations

from collections.abc import Callable

from topsieve_sim.validation.checks import Check, Section
from topsieve_sim.validation.figure14 import DATA, geomean
from topsieve_sim.validation.gpt2 import GPU_MEDIUM_MS
from topsieve_sim.validation.workbench import GPT2_SETS, MEDIUM_LINEAR, MEDIUM_MEAN, Workbench, gpt2

# TITAN Xp, FC layers of GPT-2-Medium, 32 tokens (Table IV); Xeon, all of it (Figure 2, two digits).
GPU_LINEAR_MS, XEON_MS = 388.3, 2900.0
# Speed-up by bits of the FC weights and by data set.
OVER_GPU = {
    12: dict(zip(GPT2_SETS, (18, 18, 19, 19), strict=True)),
    8: dict(zip(GPT2_SETS, (27, 27, 27, 28), strict=True)),
}
OVER_XEON = {12: (71, 72, 73, 74), 8: (104, 105, 108, 110)}

Compute = Callable[[Workbench], float]

STREAMING = "the ideal memory streams the FC weights, 93 % of the time, at its peak; the machine itself reached 73 %"


def linear_ms(bench: Workbench, bits: int) -> float:
    """FC layers of 32 tokens with weights of `bits`."""
    widths = (f"formats.key_msb_bits={bits}", f"formats.key_lsb_bits={0 if bits > 8 else 4}")
    return bench.milliseconds(MEDIUM_LINEAR, "fully_connected=true", *widths)


def _over_gpu(data: str, bits: int) -> Compute:
    return lambda bench: (
        (GPU_LINEAR_MS + GPU_MEDIUM_MS) / (linear_ms(bench, bits) + bench.milliseconds(gpt2("medium", data)))
    )


def _over_xeon(bits: int) -> Compute:
    return lambda bench: geomean(
        XEON_MS / (linear_ms(bench, bits) + bench.milliseconds(gpt2("medium", data))) for data in GPT2_SETS
    )


def _attention_share(bench: Workbench) -> float:
    attention = bench.milliseconds(MEDIUM_MEAN)
    return 100 * attention / (attention + linear_ms(bench, 8))


SECTIONS = (
    Section(
        "End to end: GPT-2-Medium with its FC layers",
        "FC and attention one after the other, 32 tokens. The GPU's times are Table IV's (755.0 ms), the Xeon's is read from "
        "Figure 2 (2.9 s). GPU times of GPT-2-Small are not published, so its half of Figure 15 is not here. Attention with head "
        "pruning, as in Figure 14.",
        (
            Check(
                "attention's share of the time",
                "%",
                100 * 2.13 / (2.13 + 25.75),
                _attention_share,
                "Table IV",
                decimals=1,
                reason="the denominator: " + STREAMING,
            ),
            *(
                Check(
                    f"over TITAN Xp, {bits}-bit FC, {DATA[data]}",
                    "x",
                    speed_up,
                    _over_gpu(data, bits),
                    "Figure 15",
                    decimals=1,
                    reason=STREAMING,
                )
                for bits, sets in OVER_GPU.items()
                for data, speed_up in sets.items()
            ),
            *(
                Check(
                    f"over Xeon, {bits}-bit FC, mean of four sets",
                    "x",
                    geomean(speed_ups),
                    _over_xeon(bits),
                    "Figure 15; the Xeon's time from Figure 2",
                    decimals=1,
                    reason=STREAMING,
                )
                for bits, speed_ups in OVER_XEON.items()
            ),
        ),
    ),
)
