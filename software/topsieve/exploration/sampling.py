"""Which points of a space a sweep takes: every combination, or a Latin hypercube."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from topsieve.exploration.spec import Axis, Sampling, Scalar, SearchSpec, SweepSpec
from topsieve.methods import describe

# The first columns of every point: which workload it runs.
TRACE, METHOD, KEEP = "trace", "method", "keep"

# Column: value; None where a method takes no keep ratio.
Place = Mapping[str, Scalar | None]


def axes_of(spec: SweepSpec | SearchSpec) -> dict[str, Axis]:
    """All axes of the space by column, those of the workload first."""
    workload = spec.workload
    axes: dict[str, Axis] = {}
    if workload.traces:
        axes[TRACE] = Axis(values=workload.traces)
    else:
        axes[METHOD] = Axis(values=workload.methods)
        if workload.keep:
            axes[KEEP] = workload.keep
    return {**axes, **spec.fields}


def places(spec: SweepSpec) -> tuple[Place, ...]:
    """The points in a fixed order, none twice.

    A method that takes no keep ratio, or says its own, is one point for all of them.
    """
    axes = axes_of(spec)
    found: dict[tuple[Scalar | None, ...], Place] = {}
    drawn = _grid(axes) if spec.sampling is Sampling.GRID else latin_hypercube(axes, spec.points or 0, spec.seed)
    for values in drawn:
        place: dict[str, Scalar | None] = dict(zip(axes, values, strict=True))
        if METHOD in place:
            place[KEEP] = kept(str(place[METHOD]), place.get(KEEP))
        # As text too: 1, 1.0 and True are equal to Python.
        found.setdefault(tuple(map(repr, place.values())), place)
    return tuple(found.values())


def kept(method: str, keep: Scalar | None) -> float | None:
    """The keep ratio that `method` gets of the space's `keep`: none where it takes none or says its own."""
    if keep is None or "keep=" in _own(method) or not describe(method.partition(":")[0].strip()).takes_keep:
        return None
    return float(keep)


def _own(method: str) -> str:
    """The parameters that a method's text gives, with `keep=` only where it is the parameter `keep` itself."""
    parts = method.partition(":")[2].split(",")
    return ",".join(part for part in parts if part.strip().startswith("keep="))


def _grid(axes: Mapping[str, Axis]) -> Iterator[tuple[Scalar, ...]]:
    return itertools.product(*(axis.grid() for axis in axes.values()))


def latin_hypercube(axes: Mapping[str, Axis], points: int, seed: int) -> Iterator[tuple[Scalar, ...]]:
    """`points` points; on every axis each of `points` equal strata holds exactly one (McKay, Beckman and Conover, 1979).

    Drawn from numpy's PCG64 with `seed`; an axis that is a list takes each of its values equally often, up to one.
    """
    generator = np.random.default_rng(seed)
    columns = []
    for axis in axes.values():
        shares = (generator.permutation(points) + generator.random(points)) / points
        # A share so close to 1 that the sum rounds to it belongs to the last stratum.
        columns.append([axis.at(min(share, np.nextafter(1.0, 0.0))) for share in shares.tolist()])
    return zip(*columns, strict=True)
