"""Figures of latents, clusters and reconstructions."""
