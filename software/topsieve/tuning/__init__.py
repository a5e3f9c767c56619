"""Fine-tuning of decoders in which layers work on some of the tokens: see `docs/text-methods.md`.

Importing this package loads nothing; `topsieve.tuning.session` runs models, `topsieve.tuning.roles` is the vocabulary.
"""
