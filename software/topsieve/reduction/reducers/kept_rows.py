"""What every reducer does with the tokens that stay: carry them, their positions and their sizes along."""

from __future__ import annotations

from topsieve.reduction.reduction import Axis, Reduction
from topsieve.reduction.roles import Context, ModelShape, Selection
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Gather

# Hidden states move between host and accelerator in half precision.
HIDDEN_BITS = 16


def gathered(selection: Selection, context: Context, axis: Axis = "token") -> Reduction:
    """The plain gather of the selected tokens."""
    source = selection.keep.clamp(min=0)
    return Reduction(
        n_in=context.valid.shape[1],
        keep=selection.keep,
        valid=selection.valid,
        positions=context.positions.gather(1, source).masked_fill(~selection.valid, -1),
        size=context.size.gather(1, source).masked_fill(~selection.valid, 0),
        scores=selection.scores,
        axis=axis,
    )


def gather_work(shape: ModelShape, layer: int, tokens: int, kept: int) -> tuple[Op, ...]:
    """Moving the kept rows; nothing moves where all stay."""
    return (Gather(layer=layer, rows=kept, width=shape.width, bits=HIDDEN_BITS),) if 0 < kept < tokens else ()
