"""What is measured: for each kernel its shapes, its inevitable work, our call, the check and the other ways."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch.nn import functional

from topsieve_kernels import (
    attention_importance,
    bipartite_merge,
    decode_gathered,
    decode_progressive,
    gather_rows,
    pack_planes,
    quantise_rows,
    topk_select,
)
from topsieve_kernels.bench import floors
from topsieve_kernels.bench.baselines import SDPA, flex_column_sum, merge_by_five_operations, sdpa
from topsieve_kernels.decode import decode_gathered_reference
from topsieve_kernels.gather import gather_rows_reference
from topsieve_kernels.importance import attention_importance_reference
from topsieve_kernels.merging import merge_chosen
from topsieve_kernels.progressive import decode_progressive_reference
from topsieve_kernels.selection import topk_select_reference

Call = Callable[[], object]


@dataclass(frozen=True)
class BenchCase:
    """One row of the table. `check` returns the largest ratio of a relative error to its bound: at most 1 passes."""

    kernel: str
    shape: str
    work: floors.Work
    ours: Call
    check: Callable[[], float]
    baselines: dict[str, Call] = field(default_factory=dict)


# (batch, query heads, key-value heads, queries and keys, head_dim, causal)
ATTENTION = [
    (32, 12, 12, 128, 64, False),
    (64, 12, 12, 197, 64, False),
    (32, 12, 12, 512, 64, False),
    (8, 12, 12, 1024, 64, True),
    (1, 32, 8, 8192, 128, True),
]
# (batch, query heads, key-value heads, keys, kept rows, head_dim)
DECODE = [(16, 32, 8, 32768, 16384, 128), (16, 32, 8, 32768, 3276, 128), (1, 32, 8, 32768, 3276, 128)]
# (batch, query heads, key-value heads, keys, head_dim, threshold)
PROGRESSIVE = [(16, 32, 8, 32768, 128, 0.0), (16, 32, 8, 32768, 128, 0.1), (16, 32, 8, 32768, 128, 2.0)]
# (rows, columns, k)
SELECT = [(256, 197, 98), (256, 8192, 1024), (256, 131072, 1024), (4096, 200000, 1024)]
# (batch, tokens, channels, metric channels, removed)
MERGE = [(64, 197, 768, 64, 16), (64, 197, 768, 64, 98), (8, 4096, 320, 320, 2048)]
# (batch, heads, source rows, kept rows, head_dim)
GATHER = [(16, 8, 32768, 16384, 128), (16, 8, 32768, 3276, 128)]

SMALL = {
    "ATTENTION": [(2, 4, 2, 24, 16, True), (1, 2, 2, 20, 16, False)],
    "DECODE": [(2, 4, 2, 50, 20, 16)],
    "PROGRESSIVE": [(1, 4, 2, 40, 16, 0.1)],
    "SELECT": [(3, 50, 7)],
    "MERGE": [(2, 21, 12, 8, 5)],
    "GATHER": [(2, 2, 30, 9, 16)],
}
FULL = {
    "ATTENTION": ATTENTION,
    "DECODE": DECODE,
    "PROGRESSIVE": PROGRESSIVE,
    "SELECT": SELECT,
    "MERGE": MERGE,
    "GATHER": GATHER,
}


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """||found - wanted|| / ||wanted|| in float64; NaN stays NaN."""
    difference = (found.double() - wanted.double()).norm()
    return float(difference) if difference == 0 else float(difference / wanted.double().norm())


def worst(*ratios: float) -> float:
    """The largest; NaN where any is NaN, so that it never passes."""
    return math.nan if any(math.isnan(ratio) for ratio in ratios) else max(ratios)


def bench_cases(device: str, sizes: dict[str, list[tuple]], dtype: torch.dtype) -> Iterator[BenchCase]:
    """All cases of `sizes` with fresh random operands on `device`; large ones are made one at a time."""
    generator = torch.Generator(device=device).manual_seed(20)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def lists(batch: int, heads: int, count: int, kept: int) -> torch.Tensor:
        order = torch.rand((batch, heads, count), generator=generator, device=device).argsort(-1)
        return order[..., :kept].sort(-1).values.to(torch.int32)

    for shape in sizes["ATTENTION"]:
        yield _attention_case(normal, shape, dtype)
    for shape in sizes["DECODE"]:
        yield _decode_case(normal, lists, shape, dtype)
    for shape in sizes["PROGRESSIVE"]:
        yield _progressive_case(normal, shape, dtype)
    for shape in sizes["SELECT"]:
        yield _select_case(normal, shape)
    for shape in sizes["MERGE"]:
        yield _merge_case(normal, shape, dtype)
    for shape in sizes["GATHER"]:
        yield _gather_case(normal, lists, shape, dtype)


def _attention_case(normal: Callable[..., torch.Tensor], shape: tuple, dtype: torch.dtype) -> BenchCase:
    batch, heads, key_heads, rows, head_dim, causal = shape
    query = normal(batch, heads, rows, head_dim).to(dtype)
    key, value = (normal(batch, key_heads, rows, head_dim).to(dtype) for _ in range(2))

    def ours() -> object:
        return attention_importance(query, key, value, causal=causal)

    def check() -> float:
        # One batch element at a time: a float64 score matrix is large.
        ratios = []
        found = ours()
        for b in range(min(batch, 4)):
            wanted = attention_importance_reference(
                *(x[b : b + 1].double() for x in (query, key, value)), causal=causal
            )
            ratios.append(relative_error(found.output[b : b + 1], wanted.output) / 3e-3)
            ratios.append(relative_error(found.token_sum[b : b + 1], wanted.token_sum) / 1e-4)
            ratios.append(relative_error(found.head_sum[b : b + 1], wanted.head_sum) / 3e-3)
        return worst(*ratios)

    columns = flex_column_sum(query, key, ours().log_sum_exp, causal)
    baselines: dict[str, Call] = {name: lambda name=name: sdpa(name, query, key, value, causal) for name in SDPA}
    baselines["sdpa_cudnn_and_flex_column_sum"] = lambda: (sdpa("sdpa_cudnn", query, key, value, causal), columns())
    baselines["flex_column_sum_alone"] = columns
    if rows <= 256:
        baselines["ours_two_passes"] = lambda: attention_importance(query, key, value, causal=causal, passes="two")
    products = 2 if rows <= 256 else 3
    work = floors.attention_work(batch, heads, key_heads, rows, rows, head_dim, causal, products, query.element_size())
    name = f"B{batch} H{heads}/{key_heads} N{rows} D{head_dim}{' causal' if causal else ''}"
    return BenchCase("attention_importance", name, work, ours, check, baselines)


def _decode_case(
    normal: Callable[..., torch.Tensor], lists: Callable[..., torch.Tensor], shape: tuple, dtype: torch.dtype
) -> BenchCase:
    batch, heads, key_heads, keys, kept, head_dim = shape
    query = normal(batch, heads, head_dim).to(dtype)
    key, value = (normal(batch, key_heads, keys, head_dim).to(dtype) for _ in range(2))
    index = lists(batch, key_heads, keys, kept)
    gathered = [gather_rows_reference(x, index) for x in (key, value)]

    def attend(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(query[:, :, None], k, v, enable_gqa=heads != key_heads)

    def ours() -> object:
        return decode_gathered(query, key, value, index, probabilities=True)

    def check() -> float:
        wanted = decode_gathered_reference(
            query[:1].double(), key[:1].double(), value[:1].double(), index[:1], probabilities=True
        )
        found = ours()
        return worst(
            relative_error(found.output[:1], wanted.output) / 3e-3,
            relative_error(found.probability[:1], wanted.probability) / 1e-4,
        )

    return BenchCase(
        "decode_gathered",
        f"B{batch} H{heads}/{key_heads} N{keys} keep {kept} D{head_dim}",
        floors.decode_work(batch, heads, key_heads, kept, head_dim, query.element_size()),
        ours,
        check,
        {
            "sdpa_on_gathered_copy": lambda: attend(*gathered),
            "gather_then_sdpa": lambda: attend(*(gather_rows_reference(x, index) for x in (key, value))),
            "sdpa_on_full_cache": lambda: attend(key, value),
        },
    )


def _progressive_case(normal: Callable[..., torch.Tensor], shape: tuple, dtype: torch.dtype) -> BenchCase:
    batch, heads, key_heads, keys, head_dim, threshold = shape
    # Heads differ in sharpness, as trained ones do, so that some are sure and some are not.
    sharpness = torch.linspace(0.5, 8.0, heads, device=normal(1).device)[None, :, None]
    query, query_step = quantise_rows(normal(batch, heads, head_dim) * sharpness)
    whole, key_step = quantise_rows(normal(batch, key_heads, keys, head_dim))
    value, value_step = quantise_rows(normal(batch, key_heads, keys, head_dim))
    planes = pack_planes(whole, key_step)
    dense_key = (whole * key_step[..., None]).to(dtype)
    dense_value = (value * value_step[..., None]).to(dtype)
    dense_query = (query * query_step[..., None]).to(dtype)
    del whole

    def run(limit: float) -> object:
        return decode_progressive(query, query_step, planes, value, value_step, threshold=limit)

    def check() -> float:
        first = slice(0, 1)
        part = type(planes)(planes.msb[first], planes.lsb[first], planes.step[first])
        wanted = decode_progressive_reference(
            query[first], query_step[first], part, value[first], value_step[first], threshold=threshold
        )
        found = run(threshold)
        if not torch.equal(found.accumulator[first], wanted.accumulator):
            return math.inf
        return relative_error(found.output[first], wanted.output) / 3e-3

    flagged = float(run(threshold).flagged.view(batch, key_heads, -1).any(-1).float().mean())
    return BenchCase(
        "decode_progressive",
        f"B{batch} H{heads}/{key_heads} N{keys} D{head_dim} threshold {threshold}",
        floors.progressive_work(batch, heads, key_heads, keys, head_dim, flagged),
        lambda: run(threshold),
        check,
        {
            "ours_both_planes_always": lambda: run(2.0),
            "sdpa_16_bit": lambda: functional.scaled_dot_product_attention(
                dense_query[:, :, None], dense_key, dense_value, enable_gqa=heads != key_heads
            ),
        },
    )


def _select_case(normal: Callable[..., torch.Tensor], shape: tuple) -> BenchCase:
    rows, columns, k = shape
    # Few distinct values, so that the order of ties is tested too.
    scores = (normal(rows, columns) * 64).round() / 64

    def check() -> float:
        found, wanted = topk_select(scores, k), topk_select_reference(scores, k)
        return 0.0 if torch.equal(found.indices, wanted.indices) else math.inf

    return BenchCase(
        "topk_select",
        f"R{rows} N{columns} k{k}",
        floors.select_work(rows, columns, k),
        lambda: topk_select(scores, k),
        check,
        {
            "torch_topk_any_tie_order": lambda: torch.topk(scores, k),
            "torch_stable_sort": lambda: scores.sort(dim=1, descending=True, stable=True),
        },
    )


def _merge_case(normal: Callable[..., torch.Tensor], shape: tuple, dtype: torch.dtype) -> BenchCase:
    batch, tokens, channels, width, removed = shape
    x, metric = normal(batch, tokens, channels).to(dtype), normal(batch, tokens, width).to(dtype)

    def check() -> float:
        found = bipartite_merge(x, metric, removed)
        unit = functional.normalize(metric.double(), dim=-1)
        score = unit[:, 0::2] @ unit[:, 1::2].mT
        chosen, partner = found.source.long() // 2, found.destination.long() // 2
        reached = score.gather(1, chosen[..., None].expand(-1, -1, score.shape[2])).gather(2, partner[..., None]).sum()
        best = score.amax(-1).topk(removed, -1).values.sum()
        all_partners = torch.ones_like(score[..., 0], dtype=torch.int32).scatter(1, chosen, found.destination)
        wanted = merge_chosen(x.double(), found.source // 2, all_partners, backend="torch")
        # The sum of the chosen scores is the optimum up to float32; the merge is one rounding from float64.
        return worst(abs(float(reached / best) - 1) / 1e-4, relative_error(found.tokens, wanted.tokens) / 3e-3)

    return BenchCase(
        "bipartite_merge",
        f"B{batch} N{tokens} C{channels} metric {width} remove {removed}",
        floors.merge_work(batch, tokens, channels, width, removed, x.element_size()),
        lambda: bipartite_merge(x, metric, removed),
        check,
        {"five_torch_operations": lambda: merge_by_five_operations(x, metric, removed)},
    )


def _gather_case(
    normal: Callable[..., torch.Tensor], lists: Callable[..., torch.Tensor], shape: tuple, dtype: torch.dtype
) -> BenchCase:
    batch, heads, count, kept, head_dim = shape
    source = normal(batch, heads, count, head_dim).to(dtype)
    index = lists(batch, heads, count, kept)
    wide = index.long()[..., None].expand(-1, -1, -1, head_dim)
    flat = source.view(-1, head_dim)
    first_row = torch.arange(batch * heads, device=index.device).view(batch, heads, 1) * count
    flat_index = (index.long() + first_row).view(-1)
    plain = source[:, :, :kept].contiguous()

    def check() -> float:
        return 0.0 if torch.equal(gather_rows(source, index), gather_rows_reference(source, index)) else math.inf

    return BenchCase(
        "gather_rows",
        f"B{batch} H{heads} N{count} keep {kept} D{head_dim}",
        floors.gather_work(batch, heads, kept, head_dim * source.element_size()),
        lambda: gather_rows(source, index),
        check,
        {
            "take_along_dim": lambda: source.take_along_dim(wide, 2),
            "index_select": lambda: flat.index_select(0, flat_index),
            "copy_of_the_same_size": plain.clone,
        },
    )
