"""`R2R`: a small model writes, and a router calls the large one for single tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from topsieve.subjects.byte_gpt import text as reference
from topsieve.subjects.byte_gpt.model import LAYERS
from topsieve.transforms.decoder import VOCABULARY, ByteDecoder, byte_decoder, fits, picks, prompts
from topsieve.transforms.transform import Outcome, Transform
from topsieve.transforms.workload import OUTSIDE, Pass, Workload, exact_topk, generation
from topsieve_sim.trace.ops import FeedForward, Projection

BLOCKS, WIDENING = 6, 4  # residual blocks, and how much wider each is inside

Features = tuple[Tensor, Tensor, Tensor]


class Router(nn.Module):
    """The probability that the small model's token should be replaced.

    Parameters
    ----------
    width : of the small model's hidden states. top : logits that are read. hidden : width of the residual blocks.
    """

    def __init__(self, width: int, top: int, hidden: int) -> None:
        super().__init__()
        self.of_logits = nn.Linear(top, width)
        self.entry = nn.Linear(3 * width, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden),
                nn.Linear(hidden, WIDENING * hidden),
                nn.GELU(),
                nn.Linear(WIDENING * hidden, hidden),
            )
            for _ in range(BLOCKS)
        )
        self.exit = nn.Linear(hidden, 1)

    def forward(self, features: Features) -> Tensor:
        """Logit float [...] of last hidden state, embedding of the picked token (float [..., D]) and top logits."""
        state, embedding, logits = features
        mixed = self.entry(torch.cat((state, embedding, self.of_logits(logits)), -1))
        for block in self.blocks:
            mixed = mixed + block(mixed)
        out: Tensor = self.exit(mixed)[..., 0]
        return out


def features(decoder: ByteDecoder, states: Tensor, logits: Tensor, top: int) -> Features:
    """What the router reads at each position: state, embedding of the token that is picked there, `top` largest logits."""
    embedding = decoder.model.transformer.wte(logits.argmax(-1))
    return states, embedding, logits.sort(stable=True, dim=-1, descending=True).values[..., :top]


def trained_router(small: ByteDecoder, large: ByteDecoder, windows: Sequence[Sequence[int]], config: R2R) -> Router:
    """A router that learnt where the models pick different tokens, on `windows` of training text."""
    torch.manual_seed(config.seed)
    router = Router(small.shape.width, config.top, config.hidden)
    ids = torch.tensor(windows)
    with torch.no_grad():
        states, logits = small.hidden(ids, small.fresh())
        wanted = (large.forward(ids, large.fresh()).argmax(-1) != logits.argmax(-1)).float().clone()
        read = tuple(part.clone() for part in features(small, states, logits, config.top))
    optimiser = torch.optim.AdamW(router.parameters(), lr=config.learning_rate)
    draw = torch.Generator().manual_seed(config.seed)
    for _ in range(config.training_steps):
        rows = torch.randint(len(windows), (config.training_batch,), generator=draw)
        predicted = router(tuple(part[rows] for part in read))
        loss = nn.functional.binary_cross_entropy_with_logits(predicted, wanted[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return router.eval()


def decode(
    small: ByteDecoder,
    large: ByteDecoder,
    prompt: Sequence[int],
    count: int,
    routed: Callable[[Features], bool],
    top: int,
) -> tuple[list[int], list[tuple[int, int]]]:
    """`count` tokens behind `prompt`, and (place, tokens the large model had to catch up on) of each routed one.

    The large model reads all tokens it has not seen, and its pick replaces the small model's.
    """
    text = list(prompt)
    caches: tuple[Any, Any] = small.fresh(), large.fresh()
    calls: list[tuple[int, int]] = []
    seen = 0
    unread = text[:]
    for place in range(count):
        states, logits = small.hidden(torch.tensor([unread]), caches[0])
        token = int(logits[0, -1].argmax())
        if routed(features(small, states[0, -1], logits[0, -1], top)):
            token = int(large.forward(torch.tensor([text[seen:]]), caches[1])[0, -1].argmax())
            calls.append((place, len(text) - seen))
            seen = len(text)
        text.append(token)
        unread = [token]
    return text[len(prompt) :], calls


@dataclass(frozen=True)
class R2R(Transform):
    """R2R: a small model writes every token, a router lets the large one replace some.

    Fu et al., NeurIPS 2025; specification `methods-text`, section 14. The router reads the small model's last state, the
    embedding of its token and its largest logits. Where it answers above the threshold, the large model catches up on all
    tokens since its last call in one pass and its token stays.

    The small model is the first layers of byte-gpt with its own output map. The router is as published but narrower; it
    learns where the two models pick different tokens (published: whether a judged continuation diverges).

    Parameters
    ----------
    threshold : probability from which the large model is called; 0 is always, over 1 never.
    small_layers : layers of the small model. top : logits that the router reads. hidden : width of its blocks.
    training_steps, training_batch, learning_rate : of the router, on training text.
    sequences, prompt, new_tokens, seed : windows of held-out text, their bytes, bytes to generate, and their drawing.
    """

    name: ClassVar[str] = "r2r"
    attention: ClassVar[str] = "a small model at every token; chunks of the gap at routed ones"

    threshold: float = 0.42
    small_layers: int = 3
    top: int = 100
    hidden: int = 64
    training_steps: int = 120
    training_batch: int = 8
    learning_rate: float = 1e-3
    sequences: int = 4
    prompt: int = 192
    new_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        self.need_counts(small_layers=self.small_layers, top=self.top, hidden=self.hidden, sequences=self.sequences)
        self.need_counts(prompt=self.prompt, new_tokens=self.new_tokens, training_batch=self.training_batch)
        self.need_counts(low=0, training_steps=self.training_steps)
        self.need("small_layers", self.small_layers <= LAYERS, f"1 to {LAYERS}")
        self.need("top", self.top <= VOCABULARY, f"1 to {VOCABULARY}")
        self.need("threshold", self.threshold >= 0, "a number of at least 0")
        self.need("learning_rate", self.learning_rate > 0, "a number above 0")
        self.need("new_tokens", fits(self.prompt, self.new_tokens), "what the model's positions hold")

    def run(self) -> Outcome:
        large = byte_decoder()
        small = large.shallow(self.small_layers)
        windows = prompts(64, 128, self.seed, content=reference.reference(held_out=False))
        router = trained_router(small, large, windows, self)

        @torch.inference_mode()
        def routed(read: Features) -> bool:
            return float(router(read).sigmoid()) >= self.threshold

        passes: list[Pass] = []
        plain: list[Pass] = []
        called = agreed = alone = 0
        for sequence, prompt in enumerate(prompts(self.sequences, self.prompt, self.seed)):
            tokens, calls = decode(small, large, prompt, self.new_tokens, routed, self.top)
            called += len(calls)
            agreed += _agreed(large, prompt, tokens)
            alone += _agreed(large, prompt, small.greedy(prompt, self.new_tokens))
            passes += self._passes(small, large, calls, sequence)
            one = picks(large.shape, 1)
            plain += generation(large.shape, self.prompt, self.new_tokens, sequence=sequence, work=one)
        count = self.sequences * self.new_tokens
        facts = {
            "large_model_share": called / count,
            "tokens_as_large_model": agreed / count,
            "tokens_as_large_model_without_router": alone / count,
        }
        effect = (
            f"large model called for {called / count:.0%} of the tokens; {agreed / count:.0%} are its picks, "
            f"without it {alone / count:.0%}"
        )
        return Outcome(Workload(tuple(passes), self.name), Workload(tuple(plain), "large model"), facts, effect)

    def _passes(
        self, small: ByteDecoder, large: ByteDecoder, calls: Sequence[tuple[int, int]], sequence: int
    ) -> list[Pass]:
        wide, passes = small.shape.width, []
        router = (
            *picks(small.shape, 1),
            *exact_topk(VOCABULARY, self.top),
            Projection(layer=OUTSIDE, tokens=1, inputs=self.top, outputs=wide, role="other"),
            Projection(layer=OUTSIDE, tokens=1, inputs=3 * wide, outputs=self.hidden, role="other"),
            *(FeedForward(layer=OUTSIDE, tokens=1, width=self.hidden, hidden=WIDENING * self.hidden),) * BLOCKS,
        )
        gaps = dict(calls)
        for place in range(self.new_tokens):
            known, at = self.prompt + place, {"sequence": sequence, "step": place + 1}
            passes.append(Pass(shape=small.shape, queries=known if place == 0 else 1, keys=known, work=router, **at))
            if place in gaps:
                passes.append(
                    Pass(shape=large.shape, queries=gaps[place], keys=known, work=picks(large.shape, 1), **at)
                )
        return passes


def _agreed(large: ByteDecoder, prompt: Sequence[int], tokens: Sequence[int]) -> int:
    """How many of `tokens` the large model would have picked behind the same text."""
    picked = large.forward(torch.tensor([[*prompt, *tokens]]), large.fresh())[0].argmax(-1)
    return sum(int(picked[len(prompt) + place - 1]) == token for place, token in enumerate(tokens))
