"""Derives collections that answer questions which the given ones do not ask.

python -m benchmarks.derive halves --manifest=PATH/metadata.csv --outdir=DIR
    Each track as two files, its halves, by one `artist`: is the other half found again?
python -m benchmarks.derive half_lyrics --manifest=PATH/metadata.csv --lyrics=PATH/metadata.csv
    --outdir=DIR [--seed=0]
    The audio of one collection with the lyrics of another: every other track of a genre gets a
    song, in a language that goes with the genre four times of five.

Both write DIR/metadata.csv, and the same for the same input.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from vae_jax import manifest
from vae_jax.errors import UserError
from vae_jax.storage import files

LIKELY = 0.8  # how often a song is in the language that goes with the genre


def halves(path: Path, outdir: Path) -> Path:
    """Write the first and the second half of each track as FLAC, and their manifest."""
    import soundfile

    (outdir / "audio").mkdir(parents=True, exist_ok=True)
    rows = []
    for track in manifest.read(path, requires=["audio_path", "genre"]):
        samples, rate = soundfile.read(str(track.audio_path))
        middle = len(samples) // 2
        for i, half in enumerate((samples[:middle], samples[middle:])):
            name = f"audio/{track.id}-{i}.flac"
            soundfile.write(outdir / name, half, rate)
            texts = {"artist": track.id, "genre": track.columns["genre"]}
            rows.append({"id": f"{track.id}-{i}", "audio_path": name, **texts})
    return _write(outdir, rows)


def half_lyrics(path: Path, lyrics: Path, outdir: Path, seed: int = 0) -> Path:
    """Write a manifest in which every other track of a genre has lyrics and a language."""
    rng = np.random.default_rng(seed)
    songs: dict[str, list[str]] = {}
    for song in manifest.read(lyrics, requires=["lyrics", "language"]):
        songs.setdefault(song.columns["language"], []).append(song.lyrics)
    tracks = manifest.read(path, requires=["audio_path", "genre"])
    genres = sorted({track.columns["genre"] for track in tracks})
    seen, rows = dict.fromkeys(genres, 0), []
    for track in tracks:
        genre = track.columns["genre"]
        row = {"id": track.id, "audio_path": str(track.audio_path), "genre": genre}
        if seen[genre] % 2 == 0:
            left = sorted(name for name in songs if songs[name])
            if not left:
                raise UserError(f"{lyrics} has too few songs for half of the tracks of {path}.")
            usual = sorted(songs)[genres.index(genre) % len(songs)]
            is_usual = rng.random() < LIKELY and usual in left
            language = usual if is_usual else left[rng.integers(len(left))]
            row |= {"language": language, "lyrics": songs[language].pop()}
        seen[genre] += 1
        rows.append(row)
    return _write(outdir, rows)


def _write(outdir: Path, rows: list[dict[str, str]]) -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    files.write_csv(outdir / "metadata.csv", columns, rows)
    return outdir / "metadata.csv"


def main() -> None:
    """Parse the command line and print what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("halves", "half_lyrics"))
    parser.add_argument("--manifest", required=True, type=Path)
    parser.add_argument("--lyrics", type=Path)
    parser.add_argument("--outdir", required=True, type=Path)
    parser.add_argument("--seed", type=int, default=0, help="draws the languages")
    args = parser.parse_args()
    try:
        if args.kind == "halves":
            print(halves(args.manifest, args.outdir))
        elif args.lyrics is None:
            raise UserError("half_lyrics needs --lyrics=PATH, a manifest of songs.")
        else:
            print(half_lyrics(args.manifest.absolute(), args.lyrics, args.outdir, args.seed))
    except UserError as error:
        sys.exit(f"benchmarks.derive: {error}")


if __name__ == "__main__":
    main()
