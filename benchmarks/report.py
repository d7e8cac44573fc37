"""SPEED.md: a section for each topic of `benchmarks.run`, and one of `benchmarks.scale`."""

import re
from pathlib import Path

from vae_jax.storage import files

TOPICS = ("features", "records", "train", "embed", "cluster", "startup")
SECTIONS = (*TOPICS, "scale", "scale_streamed", "explorer", "limits")  # the last two by hand
OUT = Path(__file__).with_name("SPEED.md")


def write_section(path: Path, topic: str, text: str) -> None:
    """Replace a topic's section in the report, or add it."""
    before = path.read_text() if path.exists() else ""
    sections = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", before, re.MULTILINE | re.DOTALL))
    sections[topic] = text
    title = "# Speed and memory\n\nWritten by `python -m benchmarks.run`.\n\n"
    ordered = [f"## {name}\n\n{sections[name].strip()}\n" for name in SECTIONS if name in sections]
    with files.atomic_write(path) as file:
        file.write((title + "\n".join(ordered)).encode())
