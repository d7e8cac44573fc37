"""Devices, processes, seeds and cores: who does which part of the work."""
