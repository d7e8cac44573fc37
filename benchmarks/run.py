"""Measures time and memory against peers and against the limit, and writes SPEED.md.

pip install -e .[bench]
python -m benchmarks.run [features|records|train|embed|cluster|startup|all] [--tiny] [--out=FILE]
python -m benchmarks.run scaling [--tiny] [--out=FILE]      writes scaling.md instead

Every ratio is the median over interleaved repeats on this machine, in this run; above 1 means
that ours is better. Let nothing else run meanwhile.
"""

import argparse
import importlib
import re
from pathlib import Path

from benchmarks import measure, scaling
from vae_jax import files

TOPICS = ("features", "records", "train", "embed", "cluster", "startup")
OUT = Path(__file__).with_name("SPEED.md")


def run(topic: str, is_tiny: bool, out: Path) -> list[measure.Line]:
    """Measure one topic, print its lines as they come, and replace its section in the report."""
    module = importlib.import_module(f"benchmarks.{topic}")
    about, lines = measure.machine(), []
    print(f"{topic}: {about}", flush=True)
    for line in module.measure(module.TINY if is_tiny else module.Sizes()):
        lines.append(line)
        print("  " + " | ".join(cell for cell in line.cells() if cell), flush=True)
    write_section(out, topic, f"{module.__doc__.strip()}\n\n{about}\n\n{measure.table(lines)}")
    return lines


def write_section(path: Path, topic: str, text: str) -> None:
    """Replace a topic's section in the report, or add it."""
    before = path.read_text() if path.exists() else ""
    sections = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", before, re.MULTILINE | re.DOTALL))
    sections[topic] = text + "\n"
    title = "# Speed and memory\n\nWritten by `python -m benchmarks.run`.\n\n"
    ordered = [name for name in TOPICS if name in sections]
    content = title + "".join(f"## {name}\n\n{sections[name]}" for name in ordered)
    with files.atomic_write(path) as file:
        file.write((content.rstrip() + "\n").encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("topic", nargs="?", choices=(*TOPICS, "all", "scaling"), default="all")
    parser.add_argument(
        "--tiny", action="store_true", help="see whether it runs; times mean little"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.topic == "scaling":
        text = scaling.report(scaling.TINY if arguments.tiny else scaling.Sizes())
        print(text)
        with files.atomic_write(arguments.out or scaling.OUT) as file:
            file.write(text.encode())
        return
    for topic in TOPICS if arguments.topic == "all" else (arguments.topic,):
        run(topic, arguments.tiny, arguments.out or OUT)


if __name__ == "__main__":
    main()
