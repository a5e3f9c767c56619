"""The reduction methods, one file each, and the registry that finds them by name.

Importing this package loads neither torch nor any method.
"""

from topsieve.methods.registry import build, describe, method_class, method_names, spell

__all__ = ["build", "describe", "method_class", "method_names", "spell"]
