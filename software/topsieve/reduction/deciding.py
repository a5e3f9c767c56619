"""One step from signals to decision: score, select, reduce."""

from __future__ import annotations

from topsieve.reduction.roles import Context, Decision, Stage, Step


def decide(stage: Stage, step: Step, context: Context) -> Decision:
    """Run the roles of `stage` for `step` on what `context` shows.

    Where `stage.accumulates`, the decision's `reduction.scores` are the scorer's state for its next step; bring them
    along with `reduction.gather`.
    """
    scores = stage.scorer.score(context)
    selection = stage.selector.select(scores, step.budget, context)
    reduction = stage.reducer.reduce(selection, context)
    return Decision(
        step=step, stage=stage, reduction=reduction, tokens_in=context.live, tokens_out=reduction.tokens_out
    )
