"""Benchmarks: time, memory and quality, against peers and against the limit."""
