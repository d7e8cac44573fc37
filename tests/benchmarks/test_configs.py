"""The collections that whole jobs are timed on."""

from pathlib import Path

from benchmarks import configs
from vae_jax import manifest


def test_a_collection_of_another_size_repeats_its_tracks(collection: Path, tmp_path: Path) -> None:
    known = manifest.read(collection)
    for count in (1, len(known), 2 * len(known) + 1):
        configs.write_manifest(str(collection), count, tmp_path / "other.csv")
        found = manifest.read(tmp_path / "other.csv")
        assert len(found) == count == len({*found.ids})
        for i in range(count):
            assert found[i].audio_path == known[i % len(known)].audio_path
