"""What is measured: for each kernel its shapes, its inevitable work, our call, the check and the other ways."""

import math
from collections.abc import Callable, Iterable, Iterator
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
from topsieve_kernels.attention_one_pass import fits_one_pass
from topsieve_kernels.bench import floors
from topsieve_kernels.bench.baselines import (
    SDPA,
    compiled_merge,
    eager_importance,
    flex_column_sum,
    merge_by_five_operations,
    sdpa,
    small_tile_column_sum,
)
from topsieve_kernels.bench.shapes import (
    AttentionShape,
    DecodeShape,
    GatherShape,
    MergeShape,
    ProgressiveShape,
    SelectShape,
    Shape,
)
from topsieve_kernels.decode import decode_gathered_reference
from topsieve_kernels.gather import gather_rows_reference
from topsieve_kernels.importance import attention_importance_reference
from topsieve_kernels.merging import merge_chosen
from topsieve_kernels.progressive import decode_progressive_reference
from topsieve_kernels.selection import topk_select_reference

Call = Callable[[], object]

# Beyond this many scores the eager way, which writes all of them several times, is not tried.
EAGER_SCORES = 1 << 30


@dataclass(frozen=True)
class BenchCase:
    """One row of the table. `check` returns the largest ratio of a relative error to its bound: at most 1 passes."""

    shape: Shape
    work: floors.Work
    ours: Call
    check: Callable[[], float]
    baselines: dict[str, Call] = field(default_factory=dict)


# Small enough for the CPU, one of each kernel at least.
SMALL: tuple[Shape, ...] = (
    AttentionShape(2, 4, 2, 24, 24, 16, True),
    AttentionShape(1, 2, 2, 20, 20, 16, False),
    AttentionShape(1, 2, 1, 6, 20, 16, True),
    DecodeShape(2, 4, 2, 50, 20, 16),
    ProgressiveShape(1, 4, 2, 40, 16, 0.1),
    SelectShape(3, 50, 7),
    MergeShape(2, 21, 12, 8, 5),
    GatherShape(2, 2, 30, 9, 16),
)


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """||found - wanted|| / ||wanted|| in float64; NaN stays NaN."""
    difference = (found.double() - wanted.double()).norm()
    return float(difference) if difference == 0 else float(difference / wanted.double().norm())


def worst(*ratios: float) -> float:
    """The largest; NaN where any is NaN, so that it never passes."""
    return math.nan if any(math.isnan(ratio) for ratio in ratios) else max(ratios)


def bench_case(device: str, shape: Shape, dtype: torch.dtype) -> BenchCase:
    """The case of `shape` with fresh random operands on `device`, the same ones each time."""
    generator = torch.Generator(device=device).manual_seed(20)

    def normal(*counts: int) -> torch.Tensor:
        return torch.randn(counts, generator=generator, device=device)

    def lists(batch: int, heads: int, count: int, kept: int) -> torch.Tensor:
        order = torch.rand((batch, heads, count), generator=generator, device=device).argsort(-1)
        return order[..., :kept].sort(-1).values.to(torch.int32)

    match shape:
        case AttentionShape():
            return _attention_case(normal, shape, dtype)
        case DecodeShape():
            return _decode_case(normal, lists, shape, dtype)
        case ProgressiveShape():
            return _progressive_case(normal, shape, dtype)
        case SelectShape():
            return _select_case(normal, shape)
        case MergeShape():
            return _merge_case(normal, shape, dtype)
        case GatherShape():
            return _gather_case(normal, lists, shape, dtype)
    raise ValueError(f"no case for {shape}")


def bench_cases(device: str, shapes: Iterable[Shape], dtype: torch.dtype) -> Iterator[BenchCase]:
    """A case for each shape; large ones are made one at a time."""
    return (bench_case(device, shape, dtype) for shape in shapes)


def _attention_case(normal: Callable[..., torch.Tensor], shape: AttentionShape, dtype: torch.dtype) -> BenchCase:
    batch, heads, causal = shape.batch, shape.heads, shape.causal
    query = normal(batch, heads, shape.rows, shape.head_dim).to(dtype)
    key, value = (normal(batch, shape.key_heads, shape.keys, shape.head_dim).to(dtype) for _ in range(2))
    one_pass = fits_one_pass(shape.keys, shape.head_dim, dtype)

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

    log_sum_exp = ours().log_sum_exp
    columns = flex_column_sum(query, key, log_sum_exp, causal)
    baselines: dict[str, Call] = {name: lambda name=name: sdpa(name, query, key, value, causal) for name in SDPA}
    baselines["sdpa_cudnn_and_flex_column_sum"] = lambda: (sdpa("sdpa_cudnn", query, key, value, causal), columns())
    baselines["sdpa_cudnn_and_small_tile_column_sum"] = lambda: (
        sdpa("sdpa_cudnn", query, key, value, causal),
        small_tile_column_sum(query, key, log_sum_exp, causal),
    )
    baselines["flex_column_sum_alone"] = columns
    if batch * heads * shape.rows * shape.keys <= EAGER_SCORES:
        baselines["eager"] = lambda: eager_importance(query, key, value, causal)
    if one_pass:
        baselines["ours_two_passes"] = lambda: attention_importance(query, key, value, causal=causal, passes="two")
    work = shape.work(query.element_size(), products=2 if one_pass else 3)
    return BenchCase(shape, work, ours, check, baselines)


def _decode_case(
    normal: Callable[..., torch.Tensor], lists: Callable[..., torch.Tensor], shape: DecodeShape, dtype: torch.dtype
) -> BenchCase:
    query = normal(shape.batch, shape.heads, shape.head_dim).to(dtype)
    key, value = (normal(shape.batch, shape.key_heads, shape.keys, shape.head_dim).to(dtype) for _ in range(2))
    index = lists(shape.batch, shape.key_heads, shape.keys, shape.kept)
    gathered = [gather_rows_reference(x, index) for x in (key, value)]

    def gathered_now() -> list[torch.Tensor]:
        return [gather_rows_reference(x, index) for x in (key, value)]

    def attend(name: str, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return sdpa(name, query[:, :, None], k, v, False)

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

    baselines: dict[str, Call] = {}
    for name in SDPA:
        baselines[f"{name}_on_gathered_copy"] = lambda name=name: attend(name, *gathered)
        baselines[f"gather_then_{name}"] = lambda name=name: attend(name, *gathered_now())
        baselines[f"{name}_on_full_cache"] = lambda name=name: attend(name, key, value)
    return BenchCase(shape, shape.work(query.element_size()), ours, check, baselines)


def _progressive_case(normal: Callable[..., torch.Tensor], shape: ProgressiveShape, dtype: torch.dtype) -> BenchCase:
    batch, heads, key_heads, keys = shape.batch, shape.heads, shape.key_heads, shape.keys
    head_dim, threshold = shape.head_dim, shape.threshold
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
        shape,
        floors.progressive_work(batch, heads, key_heads, keys, head_dim, flagged),
        lambda: run(threshold),
        check,
        {
            "ours_both_planes_always": lambda: run(2.0),
            **{
                f"{name}_16_bit": lambda name=name: sdpa(name, dense_query[:, :, None], dense_key, dense_value, False)
                for name in SDPA
            },
        },
    )


def _select_case(normal: Callable[..., torch.Tensor], shape: SelectShape) -> BenchCase:
    k = shape.k
    # Few distinct values, so that the order of ties is tested too.
    scores = (normal(shape.rows, shape.columns) * 64).round() / 64

    def check() -> float:
        found, wanted = topk_select(scores, k), topk_select_reference(scores, k)
        return 0.0 if torch.equal(found.indices, wanted.indices) else math.inf

    return BenchCase(
        shape,
        shape.work(),
        lambda: topk_select(scores, k),
        check,
        {
            "torch_topk_any_tie_order": lambda: torch.topk(scores, k),
            "torch_stable_sort": lambda: scores.sort(dim=1, descending=True, stable=True),
        },
    )


def _merge_case(normal: Callable[..., torch.Tensor], shape: MergeShape, dtype: torch.dtype) -> BenchCase:
    removed = shape.removed
    x = normal(shape.batch, shape.tokens, shape.channels).to(dtype)
    metric = normal(shape.batch, shape.tokens, shape.metric_channels).to(dtype)

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

    baselines = {
        "five_torch_operations": lambda: merge_by_five_operations(x, metric, removed),
        "five_torch_operations_compiled": lambda: compiled_merge(x.is_cuda)(x, metric, removed),
    }
    return BenchCase(shape, shape.work(x.element_size()), lambda: bipartite_merge(x, metric, removed), check, baselines)


def _gather_case(
    normal: Callable[..., torch.Tensor], lists: Callable[..., torch.Tensor], shape: GatherShape, dtype: torch.dtype
) -> BenchCase:
    batch, heads, count, kept, head_dim = shape.batch, shape.heads, shape.source_rows, shape.kept, shape.head_dim
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
        shape,
        shape.work(source.element_size()),
        lambda: gather_rows(source, index),
        check,
        {
            "take_along_dim": lambda: source.take_along_dim(wide, 2),
            "index_select": lambda: flat.index_select(0, flat_index),
            "copy_of_the_same_size": plain.clone,
        },
    )
