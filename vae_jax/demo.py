"""Synthesises a small music collection, so that every stage runs offline on files that are there.

python -m vae_jax.demo --outdir=data/demo --seed=0

It writes mono 16-bit WAV files and a `metadata.csv` in the manifest's format. The six styles differ
in tempo, harmony, timbre and rhythm; the lyrics come in three languages, independent of the style.
Clusters found in it show that the software works. They prove nothing about real music.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
from absl import flags, logging
from scipy import signal

from vae_jax import console, process
from vae_jax.errors import UserError
from vae_jax.storage import files

COLUMNS = ("id", "audio_path", "title", "artist", "language", "genre", "label", "lyrics", "source")
SOURCE = "synthesised by vae_jax.demo"
NUM_ARTISTS = 4  # of each style
RELEASE = 0.03  # s, in which a note fades out after its end
SWEEP_TIME = 0.03  # s, in which a drum's pitch falls
TABLE_SIZE = 2048  # samples of one period of a tone


@dataclass(frozen=True)
class Voice:
    """An instrument, pitched or not."""

    rolloff: float  # harmonic k has the amplitude k ** -rolloff
    decay: float  # s, the time constant of an exponential
    attack: float = 0.002  # s
    odd: bool = False  # odd harmonics only, as in a square wave
    detune: float = 0.0  # relative distance between two oscillators
    drive: float = 0.0  # gain into a soft clipper
    noise: float = 0.0  # share of noise, from 0 to 1
    sweep: float = 0.0  # the onset's frequency is 1 + sweep times the note's


@dataclass(frozen=True)
class Layer:
    """What one voice plays: an x starts a note, in one bar of sixteen steps."""

    voice: Voice
    pattern: str
    role: str = "drum"
    pitch: int = 48  # MIDI number of the key note, or of a drum
    level: float = 1.0


@dataclass(frozen=True)
class Style:
    """A way to make tracks."""

    name: str
    tempo: tuple[float, float]  # beats per minute
    progressions: tuple[str, ...]  # one chord a bar, in C major or A minor
    layers: tuple[Layer, ...]
    artists: tuple[str, ...]
    off_beat: float = 0.5  # where the second quaver falls within its beat; swing is later


KICK = Voice(rolloff=3, decay=0.1, sweep=4)
SNARE = Voice(rolloff=2, decay=0.08, noise=0.8)
HAT = Voice(rolloff=1, decay=0.025, noise=1)
RIDE = Voice(rolloff=1, decay=0.12, noise=1)
BASS = Voice(rolloff=1.8, decay=0.5, attack=0.01)
PAD = Voice(rolloff=1.6, decay=4, attack=0.6, detune=0.006)
PLUCK = Voice(rolloff=1.3, decay=0.25)
STAB = Voice(rolloff=1, decay=0.18, detune=0.008)
REED = Voice(rolloff=1.4, decay=1, attack=0.03, odd=True)
GUITAR = Voice(rolloff=0.9, decay=0.8, drive=6)
SQUARE = Voice(rolloff=1, decay=0.2, odd=True)

# fmt: off
STYLES = (
    Style("house", (116, 130), ("Am F C G", "Am Em F G", "Dm Am F C"), (
        Layer(KICK, "x...x...x...x...", pitch=32, level=1.2),
        Layer(SNARE, "....x.......x...", pitch=55, level=0.4),
        Layer(HAT, "..x...x...x...x.", level=0.4),
        Layer(BASS, "..xx..x...xx..x.", "root", 36, 0.8),
        Layer(STAB, "x..x..x...x..x..", "chord", 60, 0.3),
    ), ("Kellerlicht 9", "Marla Volt", "The Blue Escalators", "Tundra Discount")),
    Style("ambient", (54, 80), ("Cmaj7 Am7 Fmaj7 Gsus", "Fmaj7 Em7 Cmaj7 Am7", "Am7 Fmaj7 Em7"), (
        Layer(PAD, "x...............", "chord", 48, 0.5),
        Layer(PAD, "x.......x.......", "lead", 72, 0.2),
        Layer(PLUCK, "x.....x.....x...", "lead", 72, 0.15),
        Layer(BASS, "x...............", "root", 36, 0.4),
    ), ("Slow Cartography", "Oda Nebelhorn", "Quiet Ferry", "Lake of Paper")),
    Style("folk", (84, 120), ("C G Am F", "C F C G", "Am G F C"), (
        Layer(PLUCK, "x.x.x.x.x.x.x.x.", "arpeggio", 60, 0.6),
        Layer(PLUCK, "x.......x.......", "chord", 48, 0.4),
        Layer(REED, "x.....x.x...x...", "lead", 72, 0.12),
        Layer(BASS, "x.......x.......", "root", 36, 0.5),
        Layer(HAT, "..x...x...x...x.", level=0.12),
    ), ("Hazel & Thistle", "Juana del Molino", "The Wooden Spoons", "Ole Birkenweg")),
    Style("rock", (118, 156), ("A5 F5 C5 G5", "A5 C5 G5 D5", "E5 G5 A5 A5"), (
        Layer(KICK, "x.....x.x.......", pitch=34),
        Layer(SNARE, "....x.......x...", pitch=55, level=0.8),
        Layer(HAT, "x.x.x.x.x.x.x.x.", level=0.4),
        Layer(GUITAR, "x.x.x.xxx.x.x.x.", "chord", 48, 0.35),
        Layer(BASS, "x.x.x.x.x.x.x.x.", "root", 36, 0.7),
        Layer(GUITAR, "x..x..x.x.x.....", "lead", 72, 0.12),
    ), ("Iron Pavement", "Los Truenos Rotos", "Gravel Parade", "Anke Sturm Band")),
    Style("swing", (108, 168), ("Dm7 G7 Cmaj7 A7", "Cmaj7 Am7 Dm7 G7", "Fmaj7 Em7 Dm7 G7"), (
        Layer(RIDE, "x...x.x.x...x.x.", level=0.3),
        Layer(HAT, "....x.......x...", level=0.3),
        Layer(BASS, "x...x...x...x...", "walk", 36, 0.9),
        Layer(PLUCK, "..x.....x.....x.", "chord", 60, 0.25),
        Layer(REED, "x.x.x...x.x.x.x.", "lead", 60, 0.35),
    ), ("Otto Five", "The Midnight Porters", "Dolores Reyna Trio", "Walnut Club"), off_beat=0.66),
    Style("chiptune", (126, 172), ("Am F C G", "C G Am Em", "Am Dm G C"), (
        Layer(SQUARE, "xxxxxxxxxxxxxxxx", "arpeggio", 72, 0.3),
        Layer(SQUARE, "x.xxx.xxx.xxx.xx", "root", 48, 0.4),
        Layer(SQUARE, "x..x..x.x...x.x.", "lead", 72, 0.3),
        Layer(SNARE, "....x.......x.x.", pitch=67, level=0.4),
        Layer(KICK, "x.......x.......", pitch=44, level=0.6),
    ), ("Pixel Pomade", "8 Bit Abuela", "Cartridge Choir", "Lötkolben")),
)

WORDS = {  # by language: section headers; subjects, verbs and endings, which make lines
    "en": (
        "[Verse], [Chorus]",
        "the river, the moon, my heart, the old city, your voice, the summer, the wind, a stranger,"
        " the night train, my brother, the rain, this song",
        "sings, sleeps, burns, waits, dances, runs away, comes home, breaks, shines, never stops",
        "in the morning, without you, all night long, under the stars, by the sea, like a fire,"
        " when I close my eyes, and nobody knows why, far from here, once again",
    ),
    "de": (
        "[Strophe], [Refrain]",
        "der Fluss, der Mond, mein Herz, die alte Stadt, deine Stimme, der Sommer, der Wind,"
        " ein Fremder, der Nachtzug, mein Bruder, der Regen, dieses Lied",
        "singt, schläft, brennt, wartet, tanzt, träumt, leuchtet, zerbricht, flüstert, schweigt",
        "am Morgen, ohne dich, die ganze Nacht, unter den Sternen, am Meer, wie ein Feuer,"
        " wenn ich die Augen schließe, und keiner weiß warum, weit weg von hier, noch einmal",
    ),
    "es": (
        "[Estrofa], [Coro]",
        "el río, la luna, mi corazón, la vieja ciudad, tu voz, el verano, el viento, un extraño,"
        " el tren nocturno, mi hermano, la lluvia, esta canción",
        "canta, duerme, arde, espera, baila, huye, vuelve a casa, se rompe, brilla, se despierta",
        "por la mañana, sin ti, toda la noche, bajo las estrellas, junto al mar, como un fuego,"
        " cuando cierro los ojos, y nadie sabe por qué, lejos de aquí, otra vez",
    ),
}
# fmt: on

NOTES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}  # semitones above C
CHORDS = {  # semitones above the root
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "5": (0, 7, 12),
    "7": (0, 4, 7, 10),
    "m7": (0, 3, 7, 10),
    "maj7": (0, 4, 7, 11),
    "sus": (0, 5, 7),
}

Role = Callable[[tuple[int, ...], int, np.random.Generator], tuple[int, ...]]
ROLES: dict[str, Role] = {  # (chord, index of the note in the bar, rng) -> semitones
    "drum": lambda chord, index, rng: (0,),
    "root": lambda chord, index, rng: chord[:1],
    "chord": lambda chord, index, rng: chord,
    "arpeggio": lambda chord, index, rng: ((*chord, chord[0] + 12)[index % (len(chord) + 1)],),
    "walk": lambda chord, index, rng: ((*chord[:3], chord[0] + 9)[index % 4],),
    "lead": lambda chord, index, rng: (int(rng.choice(chord)) + 12 * int(rng.integers(2)),),
}


def synthesise(
    directory: str | Path,
    *,
    num_tracks: int = 96,
    duration: float = 10.0,
    sample_rate: int = 22050,
    seed: int = 0,
) -> Path:
    """Write the demo collection, unless all of it is there.

    Parameters
    ----------
    directory
        Where `metadata.csv` (written last) and `audio/*.wav` go.
    num_tracks
        Number of tracks; with 18 or more, every style occurs with every language.
    duration
        Length of each track in seconds.
    sample_rate
        Sample rate in Hz.
    seed
        The same seed gives the same bytes.

    Returns
    -------
    Path
        The manifest, `directory/metadata.csv`.

    Raises
    ------
    UserError
        If the directory's `metadata.csv` is not a demo's, or cannot be written.
    """
    metadata = Path(directory) / "metadata.csv"
    num_samples = round(duration * sample_rate)
    source = f"{SOURCE} (seed {seed}, {sample_rate} Hz)"
    rows = [{**_describe(index, seed), "source": source} for index in range(num_tracks)]
    if metadata.exists():
        if _is_complete(metadata, rows, num_samples):
            logging.info("%s is up to date (%d tracks).", metadata, num_tracks)
            return metadata
        metadata.unlink()  # a killed run must not leave old rows beside new audio
    with console.Progress("synthesising", len(rows), "tracks") as progress:
        for index, row in enumerate(rows):
            buffer = io.BytesIO()
            wave = _perform(index, seed, num_samples, sample_rate)
            soundfile.write(buffer, wave, sample_rate, format="WAV", subtype="PCM_16")
            with files.atomic_write(metadata.parent / row["audio_path"]) as file:
                file.write(buffer.getvalue())
            progress.update(index + 1)
    files.write_csv(metadata, COLUMNS, rows)
    logging.info("wrote %s and %d WAV files beside it.", metadata, num_tracks)
    return metadata


def _is_complete(metadata: Path, rows: list[dict[str, str]], num_samples: int) -> bool:
    if SOURCE.encode() not in metadata.read_bytes():
        raise UserError(f"{metadata} is not a demo's manifest: choose another --outdir.")
    paths = [metadata.parent / row["audio_path"] for row in rows]
    num_bytes = 44 + 2 * num_samples  # the WAV header and the samples
    return files.read_csv(metadata) == rows and all(
        path.exists() and path.stat().st_size == num_bytes for path in paths
    )


def _design(index: int) -> tuple[Style, str, int]:
    """Return a track's style, language and artist number, each independent of the others."""
    turn, style = divmod(index, len(STYLES))
    return STYLES[style], list(WORDS)[turn % len(WORDS)], turn % NUM_ARTISTS


def _describe(index: int, seed: int) -> dict[str, str]:
    """Return a track's row in the manifest."""
    style, language, artist = _design(index)
    rng = np.random.default_rng([seed, index, 0])
    headers, subjects, verbs, endings = (words.split(", ") for words in WORDS[language])
    subjects = list(map(str, rng.permutation(subjects)))

    def lines(subjects: list[str]) -> str:
        return "\n".join(f"{who} {rng.choice(verbs)} {rng.choice(endings)}" for who in subjects)

    verse, chorus = (f"{header}\n" for header in headers)
    verses = [verse + lines(subjects[part : part + 4]) for part in (0, 4)]
    chorus += lines(subjects[8:11])
    return {
        "id": f"demo-{index:03d}",
        "audio_path": f"audio/demo-{index:03d}.wav",
        "title": subjects[8].capitalize(),
        "artist": style.artists[artist],
        "language": language,
        "genre": style.name,
        "label": style.name,
        "lyrics": "\n\n".join((verses[0], chorus, verses[1], chorus)),
    }


def _perform(index: int, seed: int, num_samples: int, sample_rate: int) -> np.ndarray:
    """Return a track's waveform, float64 [num_samples] within (-1, 1)."""
    style, _, artist = _design(index)
    habits = np.random.default_rng([seed, index % len(STYLES), artist, 1])  # the artist's
    rng = np.random.default_rng([seed, index, 2])  # the track's
    transpose = int(habits.integers(-5, 5)) + int(rng.choice((0, 0, 5, -2)))
    darkness = habits.normal(0, 0.2) + rng.normal(0, 0.1)
    levels = habits.uniform(0.5, 1.5, len(style.layers)) * rng.uniform(0.5, 1.5, len(style.layers))
    room = habits.uniform(0.05, 0.5)
    beat = 60 / rng.uniform(*style.tempo)  # s
    chords = [_chord(name) for name in str(rng.choice(style.progressions)).split()]

    mix = np.zeros(num_samples)
    for layer, level in zip(style.layers, levels, strict=True):
        pitch = layer.pitch if layer.role == "drum" else layer.pitch + transpose
        voice = replace(layer.voice, rolloff=layer.voice.rolloff + darkness)
        layer = replace(layer, voice=voice, pitch=pitch, level=layer.level * level)
        mix += _play(layer, style.off_beat, beat, chords, num_samples, sample_rate, rng)
    mix = _record(mix, room, sample_rate, rng)
    return mix * 10 ** (rng.uniform(-12, -1) / 20) / np.abs(mix).max()


def _play(
    layer: Layer,
    off_beat: float,
    beat: float,
    chords: list[tuple[int, ...]],
    num_samples: int,
    sample_rate: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return what a layer plays, float64 [num_samples]; now and then it rests for a bar."""
    sound = np.zeros(num_samples)
    steps = np.array([step for step, mark in enumerate(layer.pattern) if mark == "x"] + [16])
    onsets = beat * (steps // 4 + np.interp(steps % 4, (0, 2, 4), (0, off_beat, 1)))  # s in the bar
    for bar in range(int(np.ceil(num_samples / sample_rate / (4 * beat)))):
        if bar and rng.random() < 0.1:
            continue
        chord = chords[bar % len(chords)]
        for index, (onset, end) in enumerate(pairwise(onsets)):
            start = round((4 * beat * bar + onset + rng.uniform(0, 0.008)) * sample_rate)
            for offset in ROLES[layer.role](chord, index, rng):
                note = _note(layer.voice, layer.pitch + offset, end - onset, sample_rate, rng)
                place = sound[start : start + len(note)]
                place += rng.uniform(0.7, 1) * note[: len(place)]
    if layer.voice.drive:
        sound = np.tanh(layer.voice.drive * sound)
    return layer.level * sound


def _note(
    voice: Voice, pitch: int, seconds: float, sample_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Return one note of `seconds` and its release, float64 [samples]."""
    time = np.arange(int((min(seconds, 5 * voice.decay) + RELEASE) * sample_rate)) / sample_rate
    envelope = np.minimum(time / voice.attack, 1) * np.exp(-time / voice.decay)
    envelope *= np.minimum((time[-1] - time) / RELEASE, 1)
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    harmonics = np.arange(1, 1 + np.clip(int(sample_rate / 2 / frequency), 1, TABLE_SIZE // 2))
    spectrum = np.zeros(TABLE_SIZE // 2 + 1)
    spectrum[harmonics] = harmonics**-voice.rolloff
    if voice.odd:
        spectrum[2::2] = 0
    table = np.fft.irfft(-1j * spectrum)
    table /= np.abs(table).max()
    fall = voice.sweep * SWEEP_TIME * (1 - np.exp(-time / SWEEP_TIME))
    sound = np.zeros_like(time)
    for ratio in (1 - voice.detune / 2, 1 + voice.detune / 2) if voice.detune else (1.0,):
        phase = TABLE_SIZE * frequency * ratio * (time + fall)
        sound += (1 - voice.noise) * table[phase.astype(int) % TABLE_SIZE]
    if voice.noise:
        sound += voice.noise * np.diff(rng.normal(0, 0.5, len(time) + 1))
    return envelope * sound


def _record(mix: np.ndarray, room: float, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Add an echoing room, a microphone's treble loss and hiss; shapes are [num_samples]."""
    time = np.arange(int(0.5 * sample_rate)) / sample_rate
    echo = rng.normal(0, 1, len(time)) * np.exp(-time / 0.12)
    echo *= room / np.linalg.norm(echo)
    echo[0] = 1
    mix = signal.oaconvolve(mix, echo)[: len(mix)]
    treble_loss = rng.uniform(0, 0.3)
    mix = signal.lfilter([1 - treble_loss], [1, -treble_loss], mix)
    hiss = 10 ** rng.uniform(-4, -2.5) * np.abs(mix).max()
    return mix + rng.normal(0, hiss, len(mix))


def _chord(name: str) -> tuple[int, ...]:
    """Return the semitones above C of a chord such as Am7."""
    return tuple(NOTES[name[0]] + offset for offset in CHORDS[name[1:]])


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    del argv
    synthesise(flags.FLAGS.outdir, seed=flags.FLAGS.seed)


if __name__ == "__main__":  # importing the module must not define flags: other commands share names
    flags.DEFINE_string("outdir", "data/demo", "Where to write metadata.csv and the WAV files.")
    flags.DEFINE_integer("seed", 0, "Other seeds give other tracks.", lower_bound=0)
    process.run_command(main)
