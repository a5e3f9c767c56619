"""Decoders under methods that evict, merge or skip what their cache holds: see `docs/cache-methods.md`.

Importing this package loads nothing; `topsieve.cache.session` runs models, `topsieve.cache.roles` is the vocabulary.
"""
