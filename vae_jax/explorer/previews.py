"""Makes short previews of tracks, which a page can hold: Ogg Opus from the middle of each."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging

from vae_jax.errors import UserError

if TYPE_CHECKING:
    from vae_jax.api import Results

RATE = 24_000  # Hz
LEVEL = 0.9  # of libsndfile's compression; 31 kbit/s
BYTES_PER_SECOND = 6_000  # about, in the page
MOST = 100e6  # bytes of all previews
MOST_SECONDS = 60


def make(run: "Results", ids: Sequence[str], seconds: float) -> list[str]:
    """Return a preview of each track as base64; "" where its audio cannot be read.

    Raises
    ------
    UserError
        If they would take too much room.
    """
    size = len(ids) * seconds * BYTES_PER_SECOND
    if not 0 < seconds <= MOST_SECONDS or size > MOST:
        most = min(MOST_SECONDS, MOST / BYTES_PER_SECOND / len(ids))
        raise UserError(
            f"previews of {seconds:g} s would take about {size / 1e6:.0f} MB: embed_audio must be "
            f"above 0, and {most:.3g} s or less for {len(ids)} tracks."
        )
    return [_preview(run, id_, seconds) for id_ in ids]


def _preview(run: "Results", id_: str, seconds: float) -> str:
    import soundfile

    from vae_jax.features import audio
    from vae_jax.features.errors import AudioError, MachineError

    row = run.rows.get(id_)
    place = None if row is None else run.manifest[row].audio_path
    if not isinstance(place, Path):
        return ""
    try:
        sound = audio.load(
            place, sample_rate=RATE, duration=seconds, excerpt="center", min_duration=0.1
        )
    except (AudioError, MachineError) as error:
        logging.info("no preview of %s: %s", id_, error)
        return ""
    file = io.BytesIO()
    soundfile.write(
        file, sound.waveform, RATE, format="OGG", subtype="OPUS", compression_level=LEVEL
    )
    return base64.b64encode(file.getvalue()).decode("ascii")
