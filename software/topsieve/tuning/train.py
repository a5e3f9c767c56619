"""Fit LeMo's predictors to a decoder and a text: specification `methods-text`, section 6, predictor training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from topsieve.cache.families import decoder_of
from topsieve.methods.lemo import LeMo
from topsieve.tuning.predictor import BlockPredictor, attention_map, resized
from topsieve.tuning.session import queries_and_keys, scored_layers
from topsieve_sim.files import written_whole

PRUNE_EVERY, PRUNE_UNTIL = 100, 600
FIRST_DEAD_SHARE, DEAD_SHARE_STEP = 0.8, 0.05


def fitted(
    model: Any, method: LeMo, rows: Tensor, *, steps: int = 200, batch: int = 4, rate: float = 1e-3, seed: int = 0
) -> dict[int, BlockPredictor]:
    """Predictors of the layers that `method` scores, fitted to the map that the layers' own queries and keys give.

    The loss is the mean squared error summed over the layers; after every 100 steps up to 600 units that are seldom alive
    are removed.

    Parameters
    ----------
    model : decoder, which stays as it is. rows : int64 [T, N], texts.
    """
    decoder = decoder_of(model)
    shape, policy = decoder.shape, method.tuning(decoder.shape)
    layers = scored_layers(policy)
    torch.manual_seed(seed)
    made = {layer: BlockPredictor(shape.heads, shape.width // shape.heads, policy.block) for layer in layers}
    inputs = _inputs(model, [decoder.attentions[layer] for layer in layers], rows)
    targets = []
    with torch.no_grad():
        for layer, hidden in zip(layers, inputs, strict=True):
            found = [
                attention_map(*queries_and_keys(decoder.attentions[layer], x[None], shape), policy.block)
                for x in hidden
            ]
            targets.append(torch.cat(found))
    optimiser = _optimiser(made, rate)
    for step in range(1, steps + 1):
        chosen = torch.randint(0, len(rows), (batch,))
        predicted = [made[layer](hidden[chosen]) for layer, hidden in zip(layers, inputs, strict=True)]
        losses = [nn.functional.mse_loss(x, y[chosen]) for x, y in zip(predicted, targets, strict=True)]
        torch.stack(losses).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        if step % PRUNE_EVERY == 0 and step <= PRUNE_UNTIL:
            for layer, hidden in zip(layers, inputs, strict=True):
                without_dead_units(made[layer], hidden[chosen], step // PRUNE_EVERY)
            optimiser = _optimiser(made, rate)
    return {layer: predictor.eval().requires_grad_(False) for layer, predictor in made.items()}


@torch.no_grad()
def without_dead_units(predictor: BlockPredictor, hidden: Tensor, round_number: int) -> None:
    """Remove hidden units that are not positive in 0.8 - 0.05 (t - 1) of the blocks or more; one of a layer always stays.

    Parameters
    ----------
    hidden : float [B, N, C] to look at. round_number : t, from 1.
    """
    limit = FIRST_DEAD_SHARE - DEAD_SHARE_STEP * (round_number - 1)
    for network in (predictor.query, predictor.key):
        x, alive = predictor.blocks(hidden), []
        for place in (0, 2):
            before = network[place](x)
            dead = (before <= 0).flatten(0, -2).double().mean(0)
            keep = dead < limit
            keep[dead.argmin()] = True
            alive.append(keep)
            x = before.relu()
        old = [network[place].weight for place in (0, 2, 4)]
        bias = [network[place].bias for place in (0, 2, 4)]
        first, second = alive
        resized(network, [int(keep.sum()) for keep in alive])
        for place, weight, b, keep in (
            (0, old[0][first], bias[0], first),
            (2, old[1][second][:, first], bias[1], second),
            (4, old[2][:, second], bias[2], torch.ones(len(old[2]), dtype=torch.bool)),
        ):
            network[place].weight.copy_(weight)
            if b is not None:
                network[place].bias.copy_(b[keep])


def save_predictors(made: dict[int, BlockPredictor], path: str | Path) -> None:
    """Write the safetensors file that `LeMo(weights=...)` takes."""
    from safetensors.torch import save

    named = {
        f"layers.{layer}.{name}": x.contiguous()
        for layer, predictor in made.items()
        for name, x in predictor.state_dict().items()
    }
    with written_whole(path, "wb") as stream:
        stream.write(save(named, {"format": "pt"}))


def _optimiser(made: dict[int, BlockPredictor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam([x for predictor in made.values() for x in predictor.parameters()], lr=rate)


def _inputs(model: Any, attentions: Sequence[nn.Module], rows: Tensor) -> list[Tensor]:
    """float [T, N, C] a layer: what enters its attention."""
    seen: list[list[Tensor]] = [[] for _ in attentions]

    def keep(index: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen[index].append((args[0] if args else kwargs["hidden_states"]).detach())

        return hook

    handles = [
        module.register_forward_pre_hook(keep(index), with_kwargs=True) for index, module in enumerate(attentions)
    ]
    try:
        with torch.no_grad():
            for row in rows:
                model(input_ids=row[None], use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return [torch.cat(found) for found in seen]
