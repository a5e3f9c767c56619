"""Compile every shipped kernel configuration without a GPU, and read what the compiler made of it.

`python -m topsieve_kernels.ahead_of_time [--capability 90] [--case NAME] [--all] [--ones]` prints one JSON line a configuration:
registers, stack and local-memory traffic (both 0 means nothing spilled), shared memory, how many programs a multiprocessor
holds at once, the instructions counted in the disassembly, and those of the longest innermost loop: a loop that issues for
longer than its bytes are under way cannot reach the speed of memory. The tools come with the Triton wheel.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from topsieve_kernels import (
    attention_forward,
    attention_one_pass,
    attention_score_sum,
    decode,
    gather,
    matching,
    merge_plan,
    merging,
    progressive,
    selection,
    selection_filtered,
    selection_radix,
    split_combine,
)
from topsieve_kernels.backend import HAS_TRITON, INTERPRETED, MAXIMUM_FLOAT32_HEAD_DIM

if HAS_TRITON:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

CAPABILITIES = (80, 90)
SHARED_LIMIT_BYTES = {80: 163 * 1024, 90: 227 * 1024}
# CUDA programming guide, table of technical specifications per compute capability: 64 Ki registers of 32 bits, handed out
# to a warp by 256; shared memory of a multiprocessor, of which the system takes 1 KiB a program; 2048 threads; 32 programs.
MULTIPROCESSOR_REGISTERS = 65536
WARP_REGISTER_UNIT = 256
MULTIPROCESSOR_SHARED_BYTES = {80: 164 * 1024, 90: 228 * 1024}
PROGRAM_SHARED_BYTES = 1024
MULTIPROCESSOR_WARPS = 64
MULTIPROCESSOR_PROGRAMS = 32
MULTIPROCESSOR_ISSUES_PER_CYCLE = 4
TENSOR_CORE = ("HGMMA", "IGMMA", "HMMA", "IMMA")
COUNTED = (*TENSOR_CORE, "LDL", "STL", "LDG.E.128", "LDGSTS", "MUFU.EX2", "RED", "ATOM")
FLOATING = ("score_scale", "threshold")
DIVISIBLE = ("columns", "columns_per_part", "keys", "keys_per_part", "width", "channels", "padded")


@dataclass(frozen=True)
class Case:
    """One configuration: pointer element types by argument (`*` for the rest), constants, warps and pipeline stages."""

    name: str
    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any]
    num_warps: int = 4
    num_stages: int = 3
    matrix: bool = False
    core: bool = False
    """Compiled in the quick tests too."""
    turn_bytes: int = 0
    """Bytes from memory that a turn of the main loop cannot do without; 0 where memory does not bound it."""


@dataclass(frozen=True)
class Resources:
    """What one compiled configuration uses; `shared_bytes` per program, `instructions` as found in the disassembly."""

    case: str
    capability: int
    warps: int
    registers: int
    stack_bytes: int
    shared_bytes: int
    loop_instructions: int
    turn_bytes: int = 0
    instructions: dict[str, int] = field(default_factory=dict)

    @property
    def spilled(self) -> bool:
        """Whether any register went to local memory."""
        return self.stack_bytes > 0 or self.instructions["LDL"] + self.instructions["STL"] > 0

    @property
    def resident_programs(self) -> int:
        """Programs that one multiprocessor holds at once; 0 where not even one fits."""
        a_warp = -(-32 * self.registers // WARP_REGISTER_UNIT) * WARP_REGISTER_UNIT
        return min(
            MULTIPROCESSOR_REGISTERS // (a_warp * self.warps),
            MULTIPROCESSOR_SHARED_BYTES[self.capability] // (self.shared_bytes + PROGRAM_SHARED_BYTES),
            MULTIPROCESSOR_WARPS // self.warps,
            MULTIPROCESSOR_PROGRAMS,
        )

    @property
    def loop_bytes_per_cycle(self) -> float:
        """Bytes per cycle that a multiprocessor could take if issuing its main loop were all it had to wait for."""
        return self.turn_bytes * MULTIPROCESSOR_ISSUES_PER_CYCLE / max(self.loop_instructions * self.warps, 1)


# Name, tokens and channels: one tile, sources that stay on chip, channels in chunks; lengths that are no powers of two.
MATCHES = (
    ("_one_tile", 197, 64),
    ("_one_small_tile", 100, 48),
    ("_c64", 1024, 64),
    ("_c320", 4096, 320),
    ("_c300", 4096, 300),
    ("_c384", 4096, 384),
    ("_c768", 1024, 768),
)


DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def _case(
    name: str, kernel: Any, types: dict[str, str], constants: dict[str, Any], blocks: dict[str, int], **more: Any
) -> Case:
    tiles = {key: value for key, value in blocks.items() if key.startswith("BLOCK")}
    return Case(name, kernel, types, constants | tiles, blocks["num_warps"], blocks.get("num_stages", 3), **more)


def cases(capability: int) -> Iterator[Case]:
    """Every configuration the launchers choose on that compute capability, at the head sizes in use."""
    half = {"*": "fp16", "query_valid_ptr": "i8", "key_valid_ptr": "i8"}
    out = {"lse_ptr": "fp32", "column_ptr": "fp32", "magnitude_ptr": "fp32", "sum_ptr": "fp32"}
    masks = {"HAS_QUERY_VALID": False, "HAS_KEY_VALID": False}
    for name, dtype in DTYPES.items():
        types = half | {"*": name} | out
        for head_dim in (64, 128, 256):
            if dtype == torch.float32 and head_dim > MAXIMUM_FLOAT32_HEAD_DIM:
                continue
            size = {"HEAD_DIM": head_dim, "BLOCK_D": head_dim}
            core = name == "fp16" and head_dim == 128
            for causal in (False, True):
                tail = f"{name}_d{head_dim}{'_causal' if causal else ''}"
                # Padding takes the forward that brings the magnitudes along; few programs take smaller tiles.
                for ending, padded, few in (("", False, False), ("_padded", True, False), ("_few", False, True)):
                    flags = {"CAUSAL": causal, "HAS_KEY_VALID": padded, "HAS_OUTPUT": not padded}
                    yield _case(
                        f"score_sum_{tail}{ending}",
                        attention_score_sum.score_sum_kernel,
                        types,
                        size | flags | {"HEADS_PER_OUTPUT": 4, "OUTPUTS_PER_KEY_HEAD": 1},
                        attention_score_sum.score_sum_blocks(head_dim, dtype, capability, few),
                        matrix=True,
                        core=core and causal and not ending,
                    )
                yield _case(
                    f"forward_{tail}",
                    attention_forward.forward_kernel,
                    types,
                    size | masks | {"CAUSAL": causal},
                    attention_forward.forward_blocks(head_dim, dtype),
                    matrix=True,
                    core=core and causal,
                )
            yield _case(
                f"forward_{name}_d{head_dim}_padded",
                attention_forward.forward_kernel,
                types,
                size | {"CAUSAL": True, "HAS_QUERY_VALID": True, "HAS_KEY_VALID": True},
                attention_forward.forward_blocks(head_dim, dtype),
                matrix=True,
            )
            for keys in (64, 128, 256):
                if not attention_one_pass.fits_one_pass(keys, head_dim, dtype):
                    continue
                for masked in (False, True):
                    flags = ("CAUSAL", "MASK_KEYS", "HAS_QUERY_VALID", "HAS_KEY_VALID")
                    yield _case(
                        f"one_pass_{name}_d{head_dim}_n{keys}{'_masked' if masked else ''}",
                        attention_one_pass.one_pass_kernel,
                        types,
                        size | dict.fromkeys(flags, masked) | {"HEADS_PER_COLUMN": 1, "COLUMNS_PER_KEY_HEAD": 1},
                        attention_one_pass.one_pass_blocks(keys, head_dim, dtype, capability),
                        matrix=True,
                        core=name == "fp16" and head_dim == 64 and keys == 256,
                    )
            decode_types = {"*": "fp32", "query_ptr": name, "key_ptr": name, "value_ptr": name}
            yield _case(
                f"decode_{name}_d{head_dim}",
                decode.decode_kernel,
                decode_types | {"index_ptr": "i32", "length_ptr": "i32"},
                size | {"WRITE_SCORE": True, "BLOCK_G": 16},
                decode.decode_blocks(head_dim, dtype),
                matrix=True,
                core=core,
                turn_bytes=decode.decode_blocks(head_dim, dtype)["BLOCK_T"] * 2 * head_dim * dtype.itemsize,
            )
    for head_dim in (64, 128, 256):
        planes = {
            "query_ptr": "i8",
            "plane_ptr": "u8",
            "value_ptr": "i8",
            "length_ptr": "i32",
            "accumulator_ptr": "i32",
            "flag_ptr": "i8",
            "*": "fp32",
        }
        for second in (False, True):
            yield _case(
                f"plane_scores_{'lsb' if second else 'msb'}_d{head_dim}",
                progressive.plane_scores_kernel,
                planes,
                {"SECOND_PASS": second, "HALF_DIM": head_dim // 2, "BLOCK_H": head_dim // 2, "BLOCK_G": 16},
                progressive.SCORE_BLOCKS,
                matrix=True,
                core=head_dim == 128,
                turn_bytes=progressive.SCORE_BLOCKS["BLOCK_N"] * (head_dim // 2 + 4),
            )
        yield _case(
            f"weighted_value_d{head_dim}",
            progressive.weighted_value_kernel,
            planes,
            {"HEAD_DIM": head_dim, "BLOCK_D": head_dim, "WRITE_SCORE": True, "BLOCK_G": 16},
            progressive.VALUE_BLOCKS,
            matrix=True,
            core=head_dim == 128,
            turn_bytes=progressive.VALUE_BLOCKS["BLOCK_N"] * (head_dim + 4 + 4),
        )
        yield Case(
            f"combine_d{head_dim}",
            split_combine.combine_kernel,
            {"*": "fp32", "output_ptr": "fp16"},
            {
                "HEAD_DIM": head_dim,
                "BLOCK_D": head_dim,
                "WRITE_PROBABILITY": True,
                "BLOCK_PARTS": split_combine.MAXIMUM_PARTS,
                "TILE_PARTS": split_combine.TILE_PARTS,
                "BLOCK_T": split_combine.PROBABILITY_BLOCK,
            },
            core=head_dim == 128,
        )
    yield Case(
        "flag",
        progressive.flag_kernel,
        {"*": "fp32", "flag_ptr": "i8"},
        {"BLOCK_PARTS": split_combine.MAXIMUM_PARTS},
        num_warps=1,
        core=True,
    )
    select = {"score_ptr": "fp32", "index_ptr": "i32", "threshold_ptr": "fp32"}
    for block in (128, 1024, selection.SHORT_ROW):
        yield Case(
            f"select_short_{block}",
            selection.select_short_kernel,
            select,
            {"BLOCK": block},
            num_warps=selection.short_row_warps(block),
            core=block == selection.SHORT_ROW,
        )
    for capacity in selection_filtered.CAPACITIES:
        slots = {"CAPACITY": capacity, "CHUNK": selection_filtered.CHUNK}
        for sample in selection_filtered.SAMPLES:
            yield Case(
                f"select_collect_{capacity}_sample_{sample}",
                selection_filtered.collect_kernel,
                {"*": "i32", "score_ptr": "fp32", "bound_ptr": "fp32"},
                slots | {"SAMPLE_BITS": sample.bit_length() - 1},
                num_warps=selection_filtered.COLLECT_WARPS,
                core=(capacity, sample) == (8192, 2048),
                turn_bytes=4 * selection_filtered.CHUNK,
            )
        yield Case(
            f"select_trim_{capacity}",
            selection_filtered.trim_kernel,
            {"*": "i32", "bound_ptr": "fp32"},
            slots,
            num_warps=selection_filtered.COLLECT_WARPS,
            core=capacity == 8192,
        )
        for split in (False, True):
            yield Case(
                f"select_pick_{capacity}{'_split' if split else ''}",
                selection_filtered.pick_kernel,
                {"*": "i32", "threshold_ptr": "fp32"},
                slots | {"SPLIT": split},
                num_warps=selection_filtered.pick_warps(capacity),
                core=capacity == 8192 and split,
            )
    for again in (False, True):
        yield Case(
            f"select_radix{'_again' if again else ''}",
            selection_radix.select_radix_kernel,
            select | {"again_ptr": "i32"},
            {"HAS_AGAIN": again, "BLOCK": selection_radix.RADIX_BLOCK},
            num_warps=selection_radix.RADIX_WARPS,
            core=again,
        )
    for name, dtype in DTYPES.items():
        metric = {"*": "fp32", "metric_ptr": name, "blocked_ptr": "u8", "partner_ptr": "i32"}
        square = {"SMALLEST": matching.SMALLEST_SQUARE}
        yield _case(
            f"inverse_norm_{name}",
            matching.inverse_norm_kernel,
            metric,
            square | {"HAS_PROTECTED": True},
            matching.inverse_norm_blocks(320),
            core=name == "bf16",
        )
        for tail, tokens, channels in MATCHES:
            for is_protected in (False, True):
                blocks = matching.partner_blocks(dtype, 64, tokens, channels, 132, capability)
                flags = {key: blocks[key] for key in ("HAS_NORMS", "RESIDENT", "EVEN", "WIDTH", "REST")}
                yield _case(
                    f"best_partner_{name}{tail}{'_protected' if is_protected else ''}",
                    matching.best_partner_kernel,
                    metric,
                    square | flags | {"HAS_PROTECTED": is_protected},
                    blocks,
                    matrix=True,
                    core=not is_protected and (name == "fp16" or tail == "_c320"),
                )
        for width, removed in ((64, 2048), (320, 2048), (768, 16), (768, 98), (768, 2048)):
            for sized in (False, True):
                blocks = merging.merge_blocks(width, dtype.itemsize, removed)
                yield _case(
                    f"merge_{name}_c{width}_r{removed}{'_sized' if sized else ''}",
                    merging.merge_kernel,
                    {"*": "i32", "token_ptr": name, "merged_ptr": name, "size_ptr": "fp32", "merged_size_ptr": "fp32"},
                    {"HAS_SIZE": sized, "PLANNED": blocks["PLANNED"]},
                    blocks,
                    core=name == "bf16" and sized and width == 768,
                )
    for removed in (129, 2048):
        yield _case(
            f"merge_plan_r{removed}",
            merge_plan.plan_kernel,
            {"*": "i32"},
            {},
            merge_plan.plan_blocks(removed),
            core=removed == 2048,
        )
    for width in (16, 32):
        yield Case(
            f"gather_{width}",
            gather.gather_kernel,
            {"source_ptr": "i64", "destination_ptr": "i64", "index_ptr": "i32", "length_ptr": "i32"},
            {"HAS_LENGTH": True, "BLOCK_T": 1024 // width, "BLOCK_W": width},
            core=width == 32,
        )


def compile_case(case: Case, capability: int, ones: bool = False) -> Resources:
    """Compile one configuration for compute capability `capability` / 10 and read its resources.

    With `ones`, every integer argument is the constant 1, as Triton makes of an argument that happens to be 1.

    Raises
    ------
    ValueError
        Triton is missing, or this process interprets kernels.
    """
    if not HAS_TRITON or INTERPRETED:
        raise ValueError("ahead of time: needs Triton, in a process without TRITON_INTERPRET")

    signature, attributes, constants = {}, {}, dict(case.constants)
    for position, parameter in enumerate(case.kernel.params):
        name = parameter.name
        if parameter.is_constexpr:
            signature[name] = "constexpr"
        elif name.endswith("_ptr"):
            signature[name] = "*" + case.types.get(name, case.types.get("*", ""))
        elif ones and name not in FLOATING:
            signature[name], constants[name] = "constexpr", 1
            continue
        else:
            signature[name] = "fp32" if name in FLOATING else "i32"
        # As at run time for the usual shapes: pointers and strides are multiples of 16.
        if name.endswith("_ptr") or "_stride_" in name or name in DIVISIBLE:
            attributes[(position,)] = [["tt.divisibility", 16]]
    compiled = triton.compile(
        ASTSource(case.kernel, signature, constants, attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": case.num_warps, "num_stages": case.num_stages},
    )
    return _resources(case, capability, compiled.asm["cubin"], int(compiled.metadata.shared))


def _resources(case: Case, capability: int, cubin: bytes, shared_bytes: int) -> Resources:
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _output([str(tools / "cuobjdump"), "--dump-resource-usage", str(path)])
        listing = _output([str(tools / "nvdisasm"), "-c", str(path)])
    counts = {name: len(re.findall(rf"\b{re.escape(name)}\b", listing)) for name in COUNTED}
    registers, stack = (int(re.search(rf"{field}:(\d+)", usage).group(1)) for field in ("REG", "STACK"))
    return Resources(
        case.name,
        capability,
        case.num_warps,
        registers,
        stack,
        shared_bytes,
        max(innermost_loops(listing), default=0),
        case.turn_bytes,
        counts,
    )


def innermost_loops(listing: str) -> list[int]:
    """Instructions of every loop of a disassembly that holds no other loop; the empty one behind its end is none."""
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    count = 0
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label.group(1)] = count
        elif instruction := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            target = re.search(r"\bBRA\b.*(\.L_x_\d+)", instruction.group(1))
            if target and labels.get(target.group(1), count) < count:
                loops.append((labels[target.group(1)], count))
            count += 1
    return [
        end - begin + 1
        for begin, end in loops
        if not any((begin <= first and last < end) or (begin < first and last <= end) for first, last in loops)
    ]


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(arguments: list[str] | None = None) -> int:
    """Print one JSON line per configuration; exit 1 when any of them spilled."""
    parser = argparse.ArgumentParser(
        prog="python -m topsieve_kernels.ahead_of_time", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--capability", type=int, choices=CAPABILITIES, action="append", help="default: both")
    parser.add_argument("--case", help="only configurations whose name contains this")
    parser.add_argument("--all", action="store_true", help="every configuration, not only one per kernel")
    parser.add_argument("--ones", action="store_true", help="every integer argument the constant 1")
    options = parser.parse_args(arguments)
    spilled = False
    for capability in options.capability or CAPABILITIES:
        for case in cases(capability):
            if not (options.case in case.name if options.case else options.all or case.core):
                continue
            found = compile_case(case, capability, options.ones)
            spilled = spilled or found.spilled
            line = asdict(found) | {
                "spilled": found.spilled,
                "resident_programs": found.resident_programs,
                "loop_bytes_per_cycle": found.loop_bytes_per_cycle,
                "matrix": case.matrix,
                "limit": SHARED_LIMIT_BYTES[capability],
            }
            print(json.dumps(line), flush=True)
    return int(spilled)


if __name__ == "__main__":
    sys.exit(main())
