"""Adapters that run Hugging Face models under a reduction method."""

from topsieve.models.pooling import mean_pool
from topsieve.models.session import ReducedModel, reduce

__all__ = ["ReducedModel", "mean_pool", "reduce"]
