"""Finds structure in music without labels: features, a VAE, clusters, and honest metrics."""

__version__ = "0.2.0"
