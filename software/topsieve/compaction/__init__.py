"""Ways to shorten or thin sequences that are part of a model, not a reduction put on one: plain functions, with their work.

Specification `methods-vision`, sections 10 to 15. Each file is one idea; `*_work` gives the hardware operations.
"""
