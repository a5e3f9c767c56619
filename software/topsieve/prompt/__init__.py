"""Compression of prompts: methods that shorten a text before the model reads it, and what their scorers cost."""

from topsieve.prompt.lowering import charged
from topsieve.prompt.roles import Compressed, Prompt, PromptOnly
from topsieve.prompt.running import compress

__all__ = ["Compressed", "Prompt", "PromptOnly", "charged", "compress"]
