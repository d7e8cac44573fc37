"""The stages of a run, one a file, and the runner that knows their order."""
