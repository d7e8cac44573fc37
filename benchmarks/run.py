"""Measures time and memory against peers and against the limit, and writes SPEED.md.

pip install -e .[bench]
python -m benchmarks.run [features|records|train|embed|cluster|startup|all] [--tiny] [--out=FILE]
python -m benchmarks.run scaling [--tiny] [--out=FILE]      writes scaling.md instead

Every ratio is the median over interleaved repeats on this machine, in this run; above 1 means
that ours is better. Let nothing else run meanwhile.
"""

import argparse
import importlib
from pathlib import Path

from benchmarks import measure, scaling
from benchmarks.report import OUT, TOPICS, write_section
from vae_jax.storage import files


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
