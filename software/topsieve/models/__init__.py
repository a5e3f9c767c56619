"""Adapters that run a method on a Hugging Face model and leave the model as it was."""
