"""Finds structure in music without labels: features, a VAE, clusters, and honest metrics."""
