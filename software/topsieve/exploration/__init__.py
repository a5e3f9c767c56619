"""Design-space exploration: sweeps and searches over accelerators, methods and keep ratios.

Importing this package loads nothing heavy.
"""
