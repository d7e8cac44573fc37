"""Finds what sounds like a track, and writes playlists.

vae-jax similar RUN --to=ID|FILE [--to=...] [--not=ID] [--k=20] [--where="genre=jazz,year>=1990"]
    [--per_artist=2] [--path=ID] [--m3u=OUT.m3u8] [--output=OUT.csv]

RUN is the results folder of a run. Several tracks stand for their mean; with --union a track is to
be near to any of them. --path lists the tracks on the way from --to to another.
"""

import math
from collections.abc import Sequence

from absl import flags

from vae_jax import api, process
from vae_jax.collection import playlists, similar
from vae_jax.collection.similar import Found, Wish
from vae_jax.errors import UserError
from vae_jax.storage import files


def main(argv: Sequence[str]) -> None:
    """Print the tracks that were found, and write them where that is asked for."""
    if len(argv) != 2:
        raise UserError("name one results folder: vae-jax similar results/track --to=ID.")
    given = flags.FLAGS
    run = api.load(argv[1])
    names = _names(run, given.to)
    if not names:
        raise UserError("--to is missing: name a track by its id in clusters.csv, or a file.")
    if given.k < 1 or (given.per_artist is not None and given.per_artist < 1):
        raise UserError("--k and --per_artist must be 1 or more.")
    wish = Wish(
        to=names,
        away=_names(run, given["not"].value or ()),
        count=given.k,
        where=given.where,
        per_artist=given.per_artist,
        union=given.union,
        mutual=given.mutual,
    )
    on_the_way = given.path is not None
    found = similar.walk(run, given.path, wish) if on_the_way else similar.find(run, wish)
    if not found:
        raise UserError("no track fits: --where, --not or --per_artist leaves none.")
    print("\n".join(_lines(run, found)))
    if run.mark:
        print(f"By {run.mark}.")
    _write(run, found)


def _names(run: api.Results, given: Sequence[str]) -> list[str]:
    """Return ids or files; what is neither is a list separated by commas."""
    names = []
    for text in given:
        names += [text] if text in run.positions else [x.strip() for x in text.split(",")]
    return [name for name in names if name]


def _lines(run: api.Results, found: Sequence[Found]) -> list[str]:
    """Lay out a table: rank, distance, cluster, id, artist and title."""
    width = min(40, max(len(one.track.id) for one in found))
    lines = [f"{'':>4}  {'distance':>8}  {'cluster':>7}  {'id':<{width}}  artist - title"]
    for rank, one in enumerate(found, 1):
        distance = "" if math.isnan(one.distance) else f"{one.distance:.3g}"
        cluster = run.clusters[run.positions[one.track.id]]
        name = playlists.called(one.track)
        name = "" if name == one.track.id else name
        line = f"{rank:>4}  {distance:>8}  {cluster:>7}  {one.track.id:<{width}}  {name}"
        lines.append(line.rstrip())
    return lines


def _write(run: api.Results, found: Sequence[Found]) -> None:
    given, tracks = flags.FLAGS, [one.track for one in found]
    if given.m3u:
        count = playlists.write(given.m3u, tracks, given.absolute_paths)
        print(f"written: {given.m3u} ({count} tracks)")
    if given.output:
        columns = ("id", "distance", "cluster", "artist", "title")
        rows = [
            {
                "id": one.track.id,
                "distance": f"{one.distance:.6g}",
                "cluster": run.clusters[run.positions[one.track.id]],
                **{name: one.track.columns.get(name, "") for name in ("artist", "title")},
            }
            for one in found
        ]
        files.write_csv(given.output, columns, rows)
        print(f"written: {given.output}")


if __name__ == "__main__":
    flags.DEFINE_multi_string("to", [], "Ids, or audio files; may be repeated.")
    flags.DEFINE_multi_string("not", [], "Leave out tracks that are nearer to these.")
    flags.DEFINE_integer("k", 20, "How many tracks to list.")
    flags.DEFINE_string("where", "", 'Conditions on columns, such as "genre=jazz,year>=1990".')
    flags.DEFINE_integer("per_artist", None, "The most tracks by one artist.")
    flags.DEFINE_bool("union", False, "Be near to any of --to instead of their mean.")
    flags.DEFINE_bool("mutual", True, "Rank by mutual proximity, which avoids hubs.")
    flags.DEFINE_string("path", None, "List the tracks on the way from --to to this one.")
    flags.DEFINE_string("m3u", None, "Write a playlist, FILE.m3u8.")
    flags.DEFINE_bool("absolute_paths", False, "Write absolute paths into the playlist.")
    flags.DEFINE_string("output", None, "Write the list as FILE.csv.")
    process.run_command(main)
