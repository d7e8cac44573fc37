"""Command line of the sources: parses flags and calls one module."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from vae_jax import console
from vae_jax.config import MUSICNN
from vae_jax.errors import UserError

INTERRUPTED = 130  # 128 + SIGINT, as shells count
EXAMPLES = """examples:
  vae-jax download jamendolyrics --language=English
  vae-jax download mtg_jamendo --split=train --max_tracks=500 --data_dir=data/jamendo
  vae-jax download kaggle --dataset=OWNER/NAME --genre_from_folder
  vae-jax download folder ~/Music --output=data/music.csv
  vae-jax download m3u ~/Music/favourites.m3u8 --output=data/favourites.csv
  vae-jax download csv export.csv --column id=TrackId audio_path=Location genre="My Genre"
  vae-jax download musicnn

A download that was interrupted continues when the same command is run again. Log in to the
Hugging Face hub with `hf auth login`, to Kaggle with ~/.kaggle/kaggle.json, where access asks for
it. The extra `download` must be installed: in a clone, pip install '.[download]'.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one source; return the process's exit status."""
    flags = _parser().parse_args(arguments)
    console.set_up_logging()
    try:
        print(f"wrote {_run(flags)}")
    except UserError as error:
        print(f"vae_jax: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr, flush=True)
        return INTERRUPTED
    return 0


def _run(flags: argparse.Namespace) -> Path:
    if flags.source == "jamendolyrics":
        from vae_jax.download import jamendolyrics

        return jamendolyrics.download(
            flags.repo_id, flags.language, Path(flags.data_dir), flags.revision
        )
    if flags.source == "mtg_jamendo":
        from vae_jax.download import mtg_jamendo

        return mtg_jamendo.download(
            flags.repo_id, flags.split, flags.max_tracks, Path(flags.data_dir), flags.revision
        )
    if flags.source == "musicnn":
        from vae_jax.download import musicnn

        wheel = None if flags.wheel is None else Path(flags.wheel)
        return musicnn.download(flags.model, Path(flags.data_dir), wheel)
    if flags.source == "kaggle":
        from vae_jax.download import kaggle

        return kaggle.download(flags.dataset, Path(flags.data_dir), flags.genre_from_folder)
    path, output = Path(flags.path).expanduser(), Path(flags.output)
    if flags.source == "m3u":
        from vae_jax.download import playlist

        playlist.manifest(path, output)
    elif flags.source == "csv":
        from vae_jax.download import table

        table.manifest(path, output, dict(flags.column))
    else:
        from vae_jax.download import folder

        folder.manifest(path, output, flags.genre_from_folder)
    return output


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vae_jax.download",
        description="Fetch music and write the metadata.csv for it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sources = parser.add_subparsers(dest="source", metavar="SOURCE", required=True)

    songs = sources.add_parser("jamendolyrics", help="79 songs with lyrics in four languages")
    songs.add_argument("--language", help="English, French, German or Spanish (default: all)")
    _add_hub_flags(songs, "jamendolyrics/jamendolyrics", "data")

    tagged = sources.add_parser("mtg_jamendo", help="55,000 songs with genres, instruments, moods")
    tagged.add_argument("--split", default="train", help="train or validation (default: train)")
    tagged.add_argument(
        "--max_tracks",
        type=_count,
        default=500,
        help="songs to list, in the archives' order; 0 = all, some 100 GB (default: 500)",
    )
    _add_hub_flags(tagged, "rkstgr/mtg-jamendo", "data/jamendo")

    kaggle = sources.add_parser("kaggle", help="a Kaggle data set with music in it")
    kaggle.add_argument("--dataset", required=True, metavar="OWNER/NAME")
    kaggle.add_argument("--data_dir", default="data/kaggle", help="default: data/kaggle")
    _add_genre_flag(kaggle)

    ear = sources.add_parser("musicnn", help="the weights of MusiCNN, for feature.name=musicnn")
    ear.add_argument(
        "--model",
        choices=MUSICNN,
        default=MUSICNN[0],
        help="trained on the Million Song Dataset, or on MagnaTagATune (default: %(default)s)",
    )
    ear.add_argument(
        "--wheel", metavar="FILE", help="the package's file, where there is no network"
    )
    ear.add_argument("--data_dir", default="data/musicnn", help="default: data/musicnn")

    folder = sources.add_parser("folder", help="a music folder on this machine, by its tags")
    _add_path_flags(folder, "PATH")
    _add_genre_flag(folder)

    playlist = sources.add_parser("m3u", help="the files of a playlist (m3u, m3u8), by their tags")
    _add_path_flags(playlist, "FILE")

    table = sources.add_parser("csv", help="a table of tracks that names its columns otherwise")
    _add_path_flags(table, "FILE")
    table.add_argument(
        "--column",
        type=_column,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=COLUMN",
        help="what FILE calls a column of the manifest: id=TrackId audio_path=Location",
    )
    return parser


def _add_path_flags(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("path", metavar=name)
    parser.add_argument("--output", default="metadata.csv", help="default: metadata.csv")


def _add_hub_flags(parser: argparse.ArgumentParser, repo_id: str, data_dir: str) -> None:
    parser.add_argument("--repo_id", default=repo_id, help=f"default: {repo_id}")
    parser.add_argument("--data_dir", default=data_dir, help=f"default: {data_dir}")
    parser.add_argument("--revision", help="branch, tag or commit (default: the newest commit)")


def _add_genre_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--genre_from_folder",
        action="store_true",
        help="where a file has no genre tag, take its folder's name, as in rock/song.wav",
    )


def _column(text: str) -> tuple[str, str]:
    ours, equals, theirs = text.partition("=")
    if not (ours and equals and theirs):
        raise argparse.ArgumentTypeError(f"write NAME=COLUMN, such as id=TrackId, not {text!r}")
    return ours, theirs


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


if __name__ == "__main__":
    absl_flags.FLAGS.mark_as_parsed()  # or absl's log begins with a warning
    status = main()
    if status == INTERRUPTED:
        os._exit(status)  # now, not when the last thread has heard from the network
    sys.exit(status)
