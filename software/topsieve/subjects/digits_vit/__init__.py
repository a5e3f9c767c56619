"""`digits-vit`: a small ViT that reads one handwritten digit, trained by this package."""
