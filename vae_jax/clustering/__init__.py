"""Latents and baselines in, clusters and their scores out."""
