"""Turns tracks into features: decoding, spectra, lyrics, and their extraction into records."""
