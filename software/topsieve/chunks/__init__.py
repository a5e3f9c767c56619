"""Prompts made of chunks whose keys and values were computed in other prompts: see `docs/text-methods.md`.

Importing this package loads nothing; `topsieve.chunks.reader` runs models, `topsieve.chunks.roles` is the vocabulary.
"""
