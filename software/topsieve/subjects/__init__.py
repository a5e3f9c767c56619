"""The models that methods are compared on, one file or folder each, and the registry that finds them by name.

Importing this package loads neither torch nor any model.
"""

from topsieve.subjects.registry import open_subject, subject_names

__all__ = ["open_subject", "subject_names"]
