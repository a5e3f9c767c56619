"""Transforms that keep the tokens and change what attention must do, one file each, and the registry of their names.

Importing this package loads neither torch nor any transform.
"""

from topsieve.transforms.registry import build, describe, transform_names

__all__ = ["build", "describe", "transform_names"]
