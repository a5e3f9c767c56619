"""Train `mosaic-llava`: a LLaVA of a four-layer CLIP tower, a projector and a four-layer Llama.

    python -m topsieve.subjects.mosaic_llava.train [FOLDER]

About five minutes of CPU time on one core. The seed is fixed. Each step shows the model fresh mosaics of the training
digits with several questions in a row; heads that are thrown away afterwards make the tower's patches
say which digit their cell holds, its class token how many of each digit there are, and
the projector's output resemble the words for the place and the digit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from topsieve.subjects.digits_vit.digits import Digits, load_digits
from topsieve.subjects.mosaic_llava.mosaic import (
    BEGIN,
    BLANK,
    GRID,
    IMAGE,
    IMAGE_TOKENS,
    NONE,
    NUMBER,
    PAD,
    PATCH,
    PIXELS,
    PLACE,
    VOCABULARY,
    Mosaics,
    Question,
    how_many,
    make_mosaics,
    prompt_ids,
    which_digit,
)

CHECKPOINT = Path(__file__).parent / "checkpoint"

SEED = 0
STEPS = 800
BATCH = 32
QUESTIONS = 8
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01
REPORT_EVERY = 50
IGNORED = -100


def config() -> LlavaConfig:
    """64 image tokens and CLS; the language model sees the output of the tower's last layer but one, without CLS."""
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=PIXELS,
            patch_size=PATCH,
            num_channels=1,
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=128,
            hidden_act="gelu",
            initializer_factor=2.0,
        ),
        text_config=LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=128,
            max_position_embeddings=256,
            initializer_range=0.06,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},  # most of a head keeps its content anywhere
            pad_token_id=PAD,
            bos_token_id=BEGIN,
            eos_token_id=None,
        ),
        image_token_id=IMAGE,
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def question_about(cells: Tensor, random: torch.Generator) -> Question:
    """Three in four ask for a cell, the others count."""
    kind, row, column, digit = (int(torch.randint(n, (), generator=random)) for n in (4, GRID, GRID, 10))
    return which_digit(cells, row, column) if kind else how_many(cells, digit)


def lesson(cells: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Token ids and labels, int64 [N]: the image, then questions with their answers; only answers are learned."""
    tokens: list[int] = [BEGIN] + [IMAGE] * IMAGE_TOKENS
    labels = [IGNORED] * len(tokens)
    for _ in range(QUESTIONS):
        question = question_about(cells, random)
        tokens += [*question.prompt, question.answer]
        labels += [IGNORED] * len(question.prompt) + [question.answer]
    return torch.tensor(tokens), torch.tensor(labels)


def by_patch(cells: Tensor) -> Tensor:
    """int64 [B, 64]: for each patch what `cells` [B, 4, 4] says of the cell it lies in."""
    each = PIXELS // GRID // PATCH
    return cells.repeat_interleave(each, dim=1).repeat_interleave(each, dim=2).flatten(1)


class Tutor(nn.Module):
    """Heads on the tower's features that help it to learn and are then thrown away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = nn.Linear(width, BLANK + 1)
        self.total = nn.Linear(width, BLANK + 1)

    def forward(self, features: Tensor, cells: Tensor) -> Tensor:
        """Loss of features [B, 1 + 64, C] on cells [B, 4, 4]; its lowest value is 0."""
        share = functional.one_hot(cells.flatten(1), BLANK + 1).float().mean(1)
        per_patch = functional.cross_entropy(self.cell(features[:, 1:]).flatten(0, 1), by_patch(cells).flatten())
        total = functional.kl_div(self.total(features[:, 0]).log_softmax(-1), share, reduction="batchmean")
        return per_patch + total


def alignment(projected: Tensor, words: Tensor, cells: Tensor) -> Tensor:
    """Loss of image tokens [B, 64, C] that are unlike the words, float [vocabulary, C], for their place and their digit."""
    places = torch.arange(GRID * GRID).reshape(1, GRID, GRID).expand(cells.shape)
    digit_words = torch.cat([words[NUMBER : NUMBER + BLANK], words[NONE : NONE + 1]])
    logits = (projected @ words[PLACE : PLACE + GRID * GRID].T, projected @ digit_words.T)
    wanted = (by_patch(places), by_patch(cells))
    losses = [functional.cross_entropy(x.flatten(0, 1), y.flatten()) for x, y in zip(logits, wanted, strict=True)]
    return losses[0] + losses[1]


def look_for_likeness(model: LlavaForConditionalGeneration) -> None:
    """Begin with queries that are the keys of the same token, so that words attend to image tokens like them."""
    for layer in model.model.language_model.layers:
        key = layer.self_attn.k_proj.weight.unflatten(0, (-1, layer.self_attn.head_dim))
        with torch.no_grad():
            layer.self_attn.q_proj.weight.copy_(
                key.repeat_interleave(layer.self_attn.num_key_value_groups, 0).flatten(0, 1)
            )


def accuracy(model: LlavaForConditionalGeneration, mosaics: Mosaics, questions: list[Question]) -> float:
    """Share of one question a mosaic that is answered correctly."""
    right = 0
    with torch.no_grad():
        for pixels, question in zip(mosaics.pixels, questions, strict=True):
            logits = model(input_ids=prompt_ids(question)[None], pixel_values=pixels[None]).logits
            right += int(logits[0, -1].argmax()) == question.answer
    return right / len(questions)


def examine(model: LlavaForConditionalGeneration, digits: Digits, count: int = 100) -> tuple[float, float]:
    """Accuracy on the digit of a cell and on counting, over `count` mosaics of `digits`."""
    random = torch.Generator().manual_seed(SEED + 1)
    mosaics = make_mosaics(digits, count, random)
    places = torch.randint(GRID, (count, 2), generator=random).tolist()
    asked = torch.randint(10, (count,), generator=random).tolist()
    single = [which_digit(cells, *place) for cells, place in zip(mosaics.cells, places, strict=True)]
    counting = [how_many(cells, digit) for cells, digit in zip(mosaics.cells, asked, strict=True)]
    return accuracy(model, mosaics, single), accuracy(model, mosaics, counting)


def train() -> LlavaForConditionalGeneration:
    """The trained model, ready to run."""
    torch.manual_seed(SEED)
    random = torch.Generator().manual_seed(SEED)
    model = LlavaForConditionalGeneration(config())
    look_for_likeness(model)
    tutor = Tutor(model.config.vision_config.hidden_size)
    training, test = load_digits("training"), load_digits("test")
    weights = [*model.parameters(), *tutor.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, STEPS, pct_start=0.1)
    for step in range(1, STEPS + 1):
        model.train()
        mosaics = make_mosaics(training, BATCH, random)
        pairs = [lesson(cells, random) for cells in mosaics.cells]
        tokens = nn.utils.rnn.pad_sequence([pair[0] for pair in pairs], True, PAD)
        labels = nn.utils.rnn.pad_sequence([pair[1] for pair in pairs], True, IGNORED)
        images = model.model.get_image_features(mosaics.pixels, output_hidden_states=True)
        output = model(input_ids=tokens, mm_encoder_outputs={"image": images})
        answers = functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        help_needed = tutor(images.hidden_states[-2], mosaics.cells) + tutor(images.hidden_states[-1], mosaics.cells)
        words = model.get_input_embeddings().weight
        loss = answers + help_needed + alignment(torch.stack(list(images.pooler_output)), words, mosaics.cells)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        if step % REPORT_EVERY == 0:
            print(f"step {step}: loss {loss.item():.3f}, of answers {answers.item():.3f}", flush=True)
        if step % (10 * REPORT_EVERY) == 0:
            print("test accuracy: cell {:.2f}, count {:.2f}".format(*examine(model.eval(), test)), flush=True)
    return model.eval()


def main(folder: str | Path = CHECKPOINT) -> None:
    """Train and store."""
    torch.set_num_threads(1)
    train().half().save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:2])
