"""`byte-gpt` as a model: its configuration, and its checkpoint in this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from topsieve_sim.errors import InputError

LAYERS, HEADS, WIDTH, POSITIONS = 5, 4, 128, 512

CHECKPOINT = Path(__file__).parent / "checkpoint"
WEIGHTS, TRAINING = "model.safetensors", "training.json"
TRAINING_COMMAND = "python -m topsieve.subjects.byte_gpt.train"


def configuration() -> Any:
    """The GPT-2 configuration of `byte-gpt`: a token is a byte."""
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=256,
        n_positions=POSITIONS,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )


def load_byte_gpt(folder: Path = CHECKPOINT) -> Any:
    """The trained model in float32, for evaluation.

    Raises
    ------
    InputError
        the checkpoint is missing or does not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import GPT2LMHeadModel

    path = folder / WEIGHTS
    try:
        weights = load_file(path)
        model = GPT2LMHeadModel(configuration())
        missing, unexpected = model.load_state_dict({name: x.float() for name, x in weights.items()}, strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(
            f"cannot load: {error}", source=str(path), allowed=f"what {TRAINING_COMMAND} writes"
        ) from error
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise InputError("not this model's weights", source=str(path), allowed=f"what {TRAINING_COMMAND} writes")
    model.tie_weights()
    model.config._name_or_path = "byte-gpt"
    return model.eval()
