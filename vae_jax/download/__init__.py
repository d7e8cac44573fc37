"""Fetches music and writes the manifest for it: `python -m vae_jax.download SOURCE`.

Every source is one module with one function that ends in `local.write_manifest`; the command
line in `__main__` imports only the module that it was asked for.
"""
