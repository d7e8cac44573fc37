"""The presets: one config a file, named without its suffix, as in --config=track."""
