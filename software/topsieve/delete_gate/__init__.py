"""MrT5's gate in training: soft deletion, the controller of its share, and the gate trained here for MiniLM."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"


def shipped(weights: str) -> str:
    """The file that `weights` names: of a gate that comes with the package, by its name, or the path itself."""
    own = CHECKPOINT / f"{weights}.safetensors"
    return str(own) if weights and own.is_file() else weights
