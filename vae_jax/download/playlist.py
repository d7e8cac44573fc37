"""A playlist: a manifest of the files that an m3u or m3u8 names, in its order, by their tags."""

from pathlib import Path

from vae_jax import manifest as manifest_lib
from vae_jax.download import folder, local, tags
from vae_jax.errors import UserError
from vae_jax.features.errors import MISSING, REMEDIES


def manifest(path: Path, output: Path) -> int:
    """Write the manifest of a playlist's files.

    Entries may be relative to the playlist's folder, absolute, or file URIs, with slashes or
    backslashes. Ids are the paths, relative to that folder where they lie in it.

    Returns
    -------
    int
        The number of tracks; entries that are missing, streams, or no audio are counted, and
        listed in `<manifest>.skipped.csv`.

    Raises
    ------
    UserError
        If the playlist cannot be read, or names no audio file that can be.
    """
    try:
        lines = tags.decode(path.read_bytes()).replace("\0", "").split("\n")
    except OSError as error:
        raise UserError(f"cannot read the playlist {path} ({error.strerror}).") from error
    found = folder.Found()
    for entry in dict.fromkeys(filter(str.strip, lines)):
        if not entry.startswith("#"):
            _take(entry, path.parent, found)
    found.files = list(dict.fromkeys(found.files))
    names = [Path(local.relative(file, path.parent).lstrip("/")) for file in found.files]
    return folder.write(found, names, output, {"source": "m3u", "path": str(path)})


def _take(entry: str, parent: Path, found: folder.Found) -> None:
    """Take the file that an entry names, or note why not."""
    for spelling in (entry, entry.replace("\\", "/")):
        place = manifest_lib.resolve(parent, spelling)
        if isinstance(place, Path) and place.is_file():
            found.files.append(place)
            return
    if "://" in entry and not entry.lower().startswith("file:"):
        found.skip(entry, "stream", "it is no file on this machine", "download it")
    else:
        found.skip(entry, MISSING, "there is no such file", REMEDIES[MISSING])
