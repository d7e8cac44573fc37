"""Checkpoints and records in, latents, baselines and reconstructions out."""
