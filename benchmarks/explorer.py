"""The explorer's page of many tracks in Chromium: size, time to use, frames, search.

    python -m benchmarks.explorer [TRACKS]
    python -m benchmarks.explorer --serve [TRACKS]

The first opens a file, the second a page that is served of (by default) 1,000,000 tracks. Frames
are those of panning and of zooming. Beside them, in turns, the same browser runs a bare WebGL 2
loop: as many points of the same size at the same places, square and in one colour.
"""

import argparse
import base64
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

import vae_jax
from tests.explorer import browser, runs
from tests.explorer.test_server import ask, serving
from vae_jax.storage import files

FRAMES = 40
TURNS = 5
WORDS = (
    "night",
    "river",
    "blue",
    "winter",
    "machine",
    "garden",
    "silver",
    "echo",
    "stone",
    "light",
)

BARE = """
<!doctype html><html data-ready><body style="margin:0"><canvas></canvas><script>
const places = Uint8Array.from(atob("PLACES"), (c) => c.charCodeAt(0));
const canvas = document.querySelector("canvas");
[canvas.width, canvas.height] = [WIDTH, HEIGHT];
const gl = canvas.getContext("webgl2", { antialias: false, depth: false });
const program = gl.createProgram();
for (const [type, source] of [[gl.VERTEX_SHADER, `#version 300 es
in vec2 place; uniform vec2 shift; void main() {
gl_Position = vec4(place * 1.6 - 0.8 + shift, 0, 1); gl_PointSize = SIZE; }`],
[gl.FRAGMENT_SHADER, `#version 300 es
precision mediump float; out vec4 pixel; void main() { pixel = vec4(0, 0.4, 0.7, 1); }`]]) {
  const shader = gl.createShader(type);
  gl.shaderSource(shader, source); gl.compileShader(shader); gl.attachShader(program, shader);
}
gl.linkProgram(program); gl.useProgram(program);
gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
gl.bufferData(gl.ARRAY_BUFFER, places, gl.STATIC_DRAW);
gl.enableVertexAttribArray(0);
gl.vertexAttribPointer(0, 2, gl.UNSIGNED_SHORT, true, 0, 0);
function step(i) {
  gl.clear(gl.COLOR_BUFFER_BIT);
  gl.uniform2f(gl.getUniformLocation(program, "shift"), 0.02 * (i % 2), 0);
  gl.drawArrays(gl.POINTS, 0, TOTAL);
}
</script>
"""
LOOP = """async (count) => {
  const next = () => new Promise(requestAnimationFrame);
  const times = [];
  let before = await next();
  for (let i = 0; i < count; i++) {
    STEP;
    const now = await next();
    times.push(now - before);
    before = now;
  }
  return times.sort((a, b) => a - b)[count >> 1];
}"""
PAN = """document.body.dispatchEvent(new KeyboardEvent("keydown",
  { key: i % 2 ? "ArrowLeft" : "ArrowRight", shiftKey: true, bubbles: true }))"""
ZOOM = """document.getElementById("surface").dispatchEvent(new WheelEvent("wheel",
  { deltaY: i % 2 ? 60 : -60, clientX: 500, clientY: 400, cancelable: true }))"""
SEARCH = """async (words) => {
  const times = [];
  for (const word of words) {
    const start = performance.now();
    const search = document.getElementById("search");
    search.value = word;
    search.dispatchEvent(new Event("input"));
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[words.length >> 1];
}"""


def main(total: int) -> None:
    """Measure a page of so many synthetic tracks, and print a line for each thing."""
    with tempfile.TemporaryDirectory() as folder:
        results = _write(Path(folder), total)
        start = time.monotonic()
        path = vae_jax.load(results).explore().path
        print(f"| write the page | {time.monotonic() - start:.1f} s |")
        print(f"| size of the file | {path.stat().st_size / 1e6:.1f} MB |")
        bare = _write_bare(results, total)
        with browser.started() as chromium:
            start = time.monotonic()
            with chromium.open(path) as page, chromium.open(bare) as other:
                print(f"| from opening to usable | {_usable(chromium, path)} |")
                _frames(page, other)
                page.bring_to_front()
                print(f"| search as one types | {page.evaluate(SEARCH, [*WORDS]):.0f} ms |")


def serve(total: int) -> None:
    """Measure a served page of so many synthetic tracks, and print a line for each thing."""
    with tempfile.TemporaryDirectory() as folder:
        results = _write(Path(folder), total)
        start = time.monotonic()
        with serving(results) as (url, server), browser.started() as chromium:
            print(f"| from the command to the address | {time.monotonic() - start:.1f} s |")
            size = len(ask(url)[2]) + len(ask(f"{url}data")[2])
            print(f"| size of the page and its data | {size / 1e6:.1f} MB |")
            print(f"| from opening to usable | {_usable(chromium, url)} |")
            for name, path in {"neighbours": "near/7", "search": "find?words=river+genre"}.items():
                start = time.monotonic()
                ask(url + path)
                print(
                    f"| {name}, asked of the server | {1000 * (time.monotonic() - start):.0f} ms |"
                )
            bare = _write_bare(results, total)
            with chromium.open(url) as page, chromium.open(bare) as other:
                _frames(page, other)
                print(f"| memory of the page at most | {_memory() / 1e6:.0f} MB |")
            held = psutil.Process(server.pid).memory_info().rss
            print(f"| memory of the server | {held / 1e9:.1f} GB |")


def _memory() -> int:
    """Return the most memory that the process of any page has had, in bytes."""
    pages = [
        one.pid
        for one in psutil.Process().children(recursive=True)
        if "--type=renderer" in one.cmdline()
    ]
    states = [Path(f"/proc/{pid}/status").read_text() for pid in pages]
    return max(1024 * int(re.search(r"VmHWM:\s+(\d+)", state)[1]) for state in states)


def _usable(chromium: browser.Browser, path: Path | str) -> str:
    """Return the median time from opening the page to the first picture, and how much was work.

    The work is the browser's time on processors, which other work on the machine changes little.
    """
    times = []
    for _ in range(3):
        start, worked = time.monotonic(), _work()
        with chromium.open(path) as page:
            page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
            times.append((time.monotonic() - start, _work() - worked))
    wall, work = np.median(times, axis=0)
    return f"{wall:.1f} s ({work:.1f} s of work)"


def _work() -> float:
    """Return the time on processors of the browser's processes, in seconds."""
    times = [one.cpu_times() for one in psutil.Process().children(recursive=True)]
    return sum(one.user + one.system for one in times)


def _frames(page, other) -> None:
    steps = {"pan": (page, PAN), "zoom": (page, ZOOM), "bare": (other, "step(i)")}
    medians: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(TURNS):
        for name, (where, step) in steps.items():
            where.bring_to_front()
            medians[name].append(where.evaluate(LOOP.replace("STEP", step), FRAMES))
    bare = np.array(medians["bare"])
    print(f"| frame of a bare WebGL 2 loop | {np.median(bare):.0f} ms |")
    for name in ("pan", "zoom"):
        ratio = np.median(np.array(medians[name]) / bare)
        print(f"| frame of {name} | {np.median(medians[name]):.0f} ms, {ratio:.2f}x of bare |")


def _write(folder: Path, total: int) -> Path:
    rng = np.random.default_rng(0)
    words = np.array(WORDS)[rng.integers(0, len(WORDS), (total, 3))]
    columns = {
        "title": [" ".join(row) for row in words],
        "artist": [f"Artist {i}" for i in rng.integers(0, total // 20, total)],
        "genre": [f"genre {i}" for i in rng.integers(0, 30, total)],
        "year": [str(i) for i in rng.integers(1950, 2026, total)],
    }
    return runs.write(folder, rng.integers(0, 12, total).tolist(), columns)


def _write_bare(results: Path, total: int) -> Path:
    table = files.read_csv(results / "latent_visualization" / "vae_umap.csv")
    at = np.array([(float(row["x"]), float(row["y"])) for row in table])
    low, high = at.min(axis=0), at.max(axis=0)
    places = (65535 * (at - low) / (high - low)).astype("<u2")
    page = BARE.replace("PLACES", base64.b64encode(places.tobytes()).decode())
    size = max(2.5, 16.4 - 2.6 * np.log10(total))  # as in page/map.js
    for name, value in {"WIDTH": 900, "HEIGHT": 698, "SIZE": f"{size:.2f}", "TOTAL": total}.items():
        page = page.replace(name, str(value))
    path = results / "bare.html"
    path.write_text(page)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tracks", type=int, nargs="?")
    parser.add_argument("--serve", action="store_true")
    given = parser.parse_args()
    if given.serve:
        serve(given.tracks or 1_000_000)
    else:
        main(given.tracks or 100_000)
