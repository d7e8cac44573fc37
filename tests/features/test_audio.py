import contextlib
import os
import re
import shutil
import subprocess
import threading
import tracemalloc
from pathlib import Path

import librosa
import numpy as np
import pytest
import soxr

from tests.audio_files import forge_flac_length, forged_wav, music, write, write_music
from vae_jax.features import audio, sndfile
from vae_jax.features.audio import AudioError
from vae_jax.features.errors import MachineError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def load(path, **settings):
    defaults = {"sample_rate": 22050, "duration": 30.0, "excerpt": "start", "min_duration": 0.5}
    return audio.load(path, **defaults | settings)


def assert_same_samples_as_librosa(path, reference=None, **settings):
    ours = load(path, **settings)
    theirs, _ = librosa.load(
        reference or path,
        sr=ours.sample_rate,
        offset=ours.offset,
        duration=settings.get("duration", 30.0),
    )
    assert ours.waveform.dtype == np.float32
    np.testing.assert_array_equal(ours.waveform, theirs)
    return ours


@pytest.mark.parametrize("excerpt", ["start", "center"])
@pytest.mark.parametrize(
    ("suffix", "rate", "channels"),
    [
        ("wav", 44100, 2),
        ("wav", 22050, 1),
        ("wav", 8000, 8),
        ("flac", 44100, 2),
        ("flac", 48000, 1),
        ("ogg", 44100, 2),
        ("mp3", 44100, 2),
        ("mp3", 32000, 1),
        ("opus", 48000, 2),
    ],
)
def test_samples_are_identical_to_librosas(tmp_path, suffix, rate, channels, excerpt):
    path = write_music(tmp_path / f"song.{suffix}", 3.0, rate, channels)
    result = assert_same_samples_as_librosa(path, duration=1.7, excerpt=excerpt)
    assert len(result.waveform) == pytest.approx(1.7 * 22050, abs=1)


@pytest.mark.parametrize("sample_rate", [16000, 44100, 11025])
def test_any_rate_can_be_asked_for(tmp_path, sample_rate):
    path = write_music(tmp_path / "song.flac", 1.0, 44100)
    result = assert_same_samples_as_librosa(path, sample_rate=sample_rate)
    assert len(result.waveform) == result.sample_rate == sample_rate


def test_a_short_file_is_read_whole_wherever_the_window_is_asked_for(tmp_path):
    path = write_music(tmp_path / "song.wav", 1.0)
    start, center = load(path, excerpt="start"), load(path, excerpt="center")
    np.testing.assert_array_equal(start.waveform, center.waveform)
    assert start.duration == center.duration == 1.0
    assert start.offset == center.offset == 0


def test_the_center_is_the_middle_of_the_file(tmp_path):
    samples = np.linspace(0.1, 0.9, 4 * 22050, dtype=np.float32)
    result = load(
        write(tmp_path / "ramp.wav", samples, 22050, "FLOAT"), duration=1.0, excerpt="center"
    )
    assert result.offset == 1.5
    assert result.duration == 4.0
    np.testing.assert_array_equal(result.waveform, samples[33075:55125])


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "opus"])
def test_reading_in_blocks_changes_no_sample(tmp_path, monkeypatch, suffix):
    path = write_music(tmp_path / f"song.{suffix}", 2.0, 48000, 2)
    whole = load(path, excerpt="center", duration=1.5).waveform
    monkeypatch.setattr(sndfile, "BLOCK_VALUES", 7001)
    np.testing.assert_array_equal(load(path, excerpt="center", duration=1.5).waveform, whole)


def test_files_load_from_many_threads_at_once(tmp_path):
    path = write_music(tmp_path / "song.mp3", 2.0, 44100, 2)
    results = [None] * 8

    def work(index):
        results[index] = load(path).waveform

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, results[0])


def test_a_short_file_costs_no_memory_for_a_long_window(tmp_path):
    sound = (music(1.0)[:, 0] * 2**15).astype("<i2").tobytes()
    (tmp_path / "short.wav").write_bytes(forged_wav(sound))
    tracemalloc.start()
    result = load(tmp_path / "short.wav", duration=36000.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.duration == 1
    assert peak < 2**20


def test_a_window_that_no_memory_holds_fails_that_track_alone(tmp_path, monkeypatch):
    def exhausted(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(soxr, "resample", exhausted)
    with pytest.raises(AudioError, match="a window of 30 s of it does not fit in memory"):
        load(write_music(tmp_path / "a.wav"), sample_rate=8000)


@pytest.mark.parametrize("excerpt", ["start", "center"])
def test_a_file_of_twelve_hours_costs_no_more_memory_than_the_window(tmp_path, excerpt):
    path = tmp_path / "long.wav"
    num_bytes = 12 * 3600 * 22050 * 2
    window = (music(1.0)[:, 0] * 2**15).astype("<i2").tobytes()
    with open(path, "wb") as file:  # the rest is a hole that takes no space on the disk
        file.write(forged_wav(window, data_bytes=num_bytes))
        file.seek(44 + num_bytes // 2)
        file.write(window)
        file.truncate(44 + num_bytes)
    tracemalloc.start()
    result = load(path, duration=1.0, excerpt=excerpt)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.duration == 12 * 3600
    assert peak < 2**20


def test_a_thousand_channels_are_mixed_in_bounded_memory(tmp_path):
    frames = np.zeros((22050, 1024), np.int16)
    frames[::2, 0], frames[1::2, 0] = 2**14, -(2**14)
    path = write(tmp_path / "wide.wav", frames, 22050)
    tracemalloc.start()
    result = load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(np.abs(result.waveform), 0.5 / 1024)
    assert peak < 3 * 4 * sndfile.BLOCK_VALUES  # bytes; the whole takes 90 MB


NO_FFMPEG = "needs ffmpeg"
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason=NO_FFMPEG)
WITH_AND_WITHOUT = pytest.mark.parametrize(
    "with_ffmpeg", [False, pytest.param(True, marks=needs_ffmpeg)]
)


def ffmpeg_if(with_ffmpeg, monkeypatch):
    if not with_ffmpeg:
        monkeypatch.setenv("PATH", "")


@WITH_AND_WITHOUT
@pytest.mark.parametrize(("seconds", "excerpt"), [(2.0, "start"), (2.0, "center"), (9.0, "center")])
def test_a_flac_of_unknown_length_is_measured(tmp_path, monkeypatch, excerpt, seconds, with_ffmpeg):
    path = write_music(tmp_path / "song.flac", seconds)
    known = load(path, duration=4.0, excerpt=excerpt)
    forge_flac_length(path, 0)
    ffmpeg_if(with_ffmpeg, monkeypatch)
    result = load(path, duration=4.0, excerpt=excerpt)
    assert result.duration == pytest.approx(seconds, abs=0 if with_ffmpeg else 0.2)
    assert result.warnings == ()
    assert result.decoder == ("ffmpeg" if with_ffmpeg else "libsndfile")
    if with_ffmpeg or excerpt == "start":
        most = len(result.waveform)
        np.testing.assert_array_equal(result.waveform, known.waveform[:most])


@WITH_AND_WITHOUT
@pytest.mark.parametrize("excerpt", ["start", "center", "spread"])
def test_a_flac_that_promises_days_is_read_as_far_as_it_goes(
    tmp_path, monkeypatch, excerpt, with_ffmpeg
):
    path = forge_flac_length(write_music(tmp_path / "song.flac", 2.0), 2**36 - 1)
    ffmpeg_if(with_ffmpeg, monkeypatch)
    result = load(path, excerpt=excerpt)
    assert result.duration == pytest.approx(2.0, abs=0.2)
    (warning,) = result.warnings
    assert re.fullmatch(r"shorter than its header: (2.0|1.9) of 3116\d{3}.\d s", warning)


@WITH_AND_WITHOUT
@pytest.mark.parametrize("excerpt", ["start", "center", "spread"])
@pytest.mark.parametrize("suffix", ["wav", "aiff", "au", "w64", "flac", "mp3"])
def test_a_cut_file_is_read_as_far_as_it_goes_and_says_so(
    tmp_path, monkeypatch, suffix, excerpt, with_ffmpeg
):
    path = write_music(tmp_path / f"song.{suffix}", 8.0)
    intact = load(path, duration=1.0).waveform
    os.truncate(path, path.stat().st_size // 2)
    ffmpeg_if(with_ffmpeg, monkeypatch)
    np.testing.assert_array_equal(load(path, duration=1.0).waveform, intact)
    result = load(path, excerpt=excerpt, num_windows=300)
    assert 3.2 < result.duration < 4.8
    assert result.warnings == (f"shorter than its header: {result.duration:.1f} of 8.0 s",)
    assert result.waveform.size == pytest.approx(22050 * result.duration, abs=0.1 * 22050)
    with pytest.raises(AudioError, match="shorter than its header"):
        load(path, refuse_truncated=True)


def test_too_short_audio_names_the_setting(tmp_path):
    path = write_music(tmp_path / "song.wav", 0.05)
    with pytest.raises(AudioError) as error:
        load(path)
    assert str(error.value) == "0.05 s is shorter than config.feature.min_duration (0.5 s)"


@pytest.mark.parametrize("peak", [0, 2**-15])
def test_silence_and_dithered_silence_fail(tmp_path, peak):
    samples = np.random.default_rng(0).choice([-peak, 0, peak], size=22050).astype(np.float32)
    with pytest.raises(AudioError, match="silent"):
        load(write(tmp_path / "silence.wav", samples, 22050))


def test_quiet_music_is_not_silence(tmp_path):
    path = write(tmp_path / "quiet.wav", 1e-3 * music(1.0), 22050, "PCM_24")
    assert load(path).waveform.max() < 1e-3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_samples_that_are_no_numbers_fail(tmp_path, value, channels):
    samples = music(1.0, channels=channels)
    samples[1000] = value
    with pytest.raises(AudioError, match="not finite"):
        load(write(tmp_path / "broken.wav", samples, 22050, "FLOAT"))


@pytest.mark.parametrize("rate", [1, 500, 2_000_000])
def test_absurd_sample_rates_fail(tmp_path, rate):
    path = tmp_path / "odd.wav"
    path.write_bytes(forged_wav(b"\1\2" * 50000, sample_rate=rate))
    with pytest.raises(AudioError, match=f"sample rate of {rate} Hz is outside"):
        load(path)


def test_a_rate_of_768_khz_is_resampled(tmp_path):
    path = write_music(tmp_path / "fast.wav", 1.0, 768000)
    assert len(assert_same_samples_as_librosa(path).waveform) == 22050


@pytest.mark.filterwarnings("ignore::DeprecationWarning:audioread")
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.wav", b"", "the file is empty"),
        ("text.wav", b"this is a text file " * 100, "not audio"),
        ("text.mp3", b"this is a text file " * 100, "not audio"),
        ("text.gsm", b"this is a text file " * 100, "headerless"),
        ("text.raw", b"this is a text file " * 100, "headerless"),
        ("playlist.m4a", b"#EXTM3U\nhttp://127.0.0.1/x.ts\n" * 9, "not audio"),
        ("header.wav", forged_wav(b""), "no samples"),
        ("nochannels.wav", forged_wav(b"\1\2" * 9999, channels=0), "not audio.*Channel count"),
        ("channels.wav", forged_wav(b"\1\2" * 9999, channels=2000), "not audio"),
        ("norate.wav", forged_wav(b"\1\2" * 9999, sample_rate=0), "not audio"),
        ("broken.m4a", b"\0\0\0\x20ftypM4A " + bytes(999), r"not decodable: no index \(moov\)"),
    ],
)
def test_what_is_not_audio_fails_with_a_reason(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioError, match=reason):
        load(path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "opus"])
def test_damaged_files_load_finite_samples_or_raise_an_audio_error(tmp_path, suffix):
    random = np.random.default_rng(0)
    path = write_music(tmp_path / f"song.{suffix}", 1.0, 48000, 2)
    intact = np.frombuffer(path.read_bytes(), np.uint8)
    for case in range(30):
        content = intact.copy()
        reach = 200 if case % 2 else len(content)  # the header, or anywhere
        places = random.integers(reach, size=random.integers(1, 20))
        content[places] = random.integers(256, size=len(places))
        path.write_bytes(content[: random.integers(1, len(content)) if case % 3 == 0 else None])
        with contextlib.suppress(AudioError):
            assert np.isfinite(load(path, excerpt="center").waveform).all()


@pytest.mark.parametrize("extension", ["mp3", "flac", "m4a", "gsm", "txt"])
def test_the_content_and_not_the_extension_tells_the_format(tmp_path, extension):
    path = write_music(tmp_path / "song.wav")
    expected = load(path).waveform
    np.testing.assert_array_equal(load(path.rename(f"{path}.{extension}")).waveform, expected)


def test_what_is_not_a_file_fails_with_a_reason_and_never_hangs(tmp_path):
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    for name, reason in {
        "missing.wav": "No such file",
        "fifo.wav": "not a regular file",
        "folder.wav": "is a folder",
        "loop.wav": "symbolic links",
        "n" * 300: "name too long",
    }.items():
        with pytest.raises(AudioError, match=reason):
            load(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_fails_with_a_reason(tmp_path):
    path = write_music(tmp_path / "secret.wav")
    path.chmod(0)
    with pytest.raises(AudioError, match="Permission denied"):
        load(path)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.parametrize("suffix", ["m4a", "aac", "webm"])
@pytest.mark.parametrize("excerpt", ["start", "center"])
def test_containers_beyond_libsndfile_equal_what_ffmpeg_decodes(tmp_path, suffix, excerpt):
    path, decoded = tmp_path / f"song.{suffix}", tmp_path / "decoded.wav"
    for source, target in (
        (write_music(tmp_path / "song.wav", 3.0, 44100, 2), path),
        (path, decoded),
    ):
        subprocess.run(
            ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", source, target], check=True
        )
    assert_same_samples_as_librosa(path, decoded, duration=1.7, excerpt=excerpt)


@pytest.mark.parametrize("folder", ["jamendolyrics", "gtzan_mini"])
@pytest.mark.parametrize("excerpt", ["start", "center"])
def test_samples_of_real_music_are_identical_to_librosas(folder, excerpt):
    paths = sorted((SHARED / folder / "audio").glob("*"))[:2]
    if not paths:
        pytest.skip(f"{SHARED / folder} is not there")
    for path in paths:
        assert_same_samples_as_librosa(path, excerpt=excerpt)


SPREAD = {"excerpt": "spread", "duration": 2.0, "num_windows": 4}


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "opus"])
@pytest.mark.parametrize("rate", [48000, 8000])
def test_spread_windows_hold_what_librosa_reads_there(tmp_path, suffix, rate):
    path = write_music(tmp_path / f"song.{suffix}", 7.0, rate, 2)
    result = load(path, **SPREAD)
    assert result.waveform.shape == (4, 11025)
    for offset, window in zip(result.offsets, result.waveform, strict=True):
        expected, _ = librosa.load(path, sr=22050, offset=offset, duration=0.5)
        np.testing.assert_array_equal(window, expected[:11025])


def test_spread_windows_lie_in_the_middle_of_equal_parts(tmp_path):
    path = write(tmp_path / "ramp.wav", np.linspace(0.1, 0.9, 8 * 8000), 8000, "FLOAT")
    result = load(path, **SPREAD, sample_rate=8000)
    assert result.offsets == (0.75, 2.75, 4.75, 6.75)
    assert result.duration == 8.0
    assert load(path, excerpt="spread", duration=2.0, num_windows=1).offsets == (3.0,)


@pytest.mark.parametrize(
    ("seconds", "num_windows"), [(2.0, 4), (1.9, 4), (1.6, 3), (1.2, 2), (0.8, 2), (0.6, 1)]
)
def test_a_short_file_has_fewer_windows_and_none_reaches_beyond_it(tmp_path, seconds, num_windows):
    samples = np.linspace(0.1, 0.9, round(seconds * 22050), dtype=np.float32)
    result = load(write(tmp_path / "ramp.wav", samples, 22050, "FLOAT"), **SPREAD)
    assert result.waveform.shape == (num_windows, 11025)
    firsts = np.searchsorted(samples, result.waveform[:, 0])
    for first, window in zip(firsts, result.waveform, strict=True):
        np.testing.assert_array_equal(window, samples[first : first + 11025])
    assert num_windows == 1 or np.ptp(np.diff(firsts)) <= 1


def test_a_file_shorter_than_a_window_is_one_window_of_its_length(tmp_path):
    path = write_music(tmp_path / "song.wav", 0.4)
    result = load(path, **SPREAD, min_duration=0.1)
    np.testing.assert_array_equal(result.waveform, load(path, min_duration=0.1).waveform[None])


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_spread_windows_of_other_containers_are_those_of_the_same_sound(tmp_path):
    wav, path = write_music(tmp_path / "song.wav", 5.0, 44100, 2), tmp_path / "song.mka"
    subprocess.run(
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", wav, "-c", "flac", path], check=True
    )
    result = load(path, **SPREAD)
    for offset, window in zip(result.offsets, result.waveform, strict=True):
        expected, _ = librosa.load(wav, sr=22050, offset=offset, duration=0.5)
        np.testing.assert_array_equal(window, expected)


def convert(source, path, *options):
    """Write a file as ffmpeg does."""
    command = ["ffmpeg", "-loglevel", "error", "-nostdin", "-y", "-i", f"file:{source}", *options]
    subprocess.run([*command, f"file:{path}"], check=True)
    return path


def mp3_of(tmp_path, seconds, *options, seed=0):
    """Return an mp3 file and how many samples it has when all of its frames are decoded."""
    wav = write_music(tmp_path / f"{seed}.wav", seconds, 44100, seed=seed)
    path = convert(
        wav, tmp_path / f"{seed}.mp3", "-write_id3v2", "0", "-id3v2_version", "0", *options
    )
    return path


@needs_ffmpeg
@pytest.mark.parametrize("excerpt", ["start", "center", "spread"])
def test_mp3_without_a_count_of_its_frames_is_measured(tmp_path, excerpt):
    half = write(tmp_path / "a.wav", 1e-3 * music(10.0, 44100), 44100)
    quiet = mp3_of(tmp_path, 10.0, "-q:a", "2", "-write_xing", "0")
    convert(half, tmp_path / "q.mp3", "-q:a", "9", "-write_xing", "0", "-id3v2_version", "0")
    path = tmp_path / "both.mp3"
    path.write_bytes((tmp_path / "q.mp3").read_bytes() + quiet.read_bytes())
    result = load(path, excerpt=excerpt, duration=12.0, num_windows=4)
    assert result.duration == pytest.approx(20.1, abs=0.1)
    assert result.decoder == "libsndfile"
    assert result.warnings == ()
    whole, _ = librosa.load(convert(path, tmp_path / "all.wav"), sr=None, mono=True)
    windows = result.waveform.reshape(-1, result.waveform.shape[-1])
    for offset, window in zip(result.offsets, windows, strict=True):
        first = int(offset * 44100)
        expected = soxr.resample(whole[first : first + 2 * len(window)], 44100, 22050)
        np.testing.assert_allclose(window[200:-200], expected[200:-200], atol=2e-3)


@needs_ffmpeg
@pytest.mark.parametrize(
    "behind", [b"TAG" + b"x" * 125, b"APETAGEX" + b"\xff\xfb" * 15000, b"\0" * 9]
)
def test_tags_behind_an_mp3_are_no_music(tmp_path, behind):
    path = mp3_of(tmp_path, 4.0, "-b:a", "64k", "-write_xing", "0")
    alone = load(path)
    path.write_bytes(path.read_bytes() + behind)
    result = load(path)
    assert result.duration == alone.duration == pytest.approx(4.05, abs=0.05)
    assert result.warnings == ()
    np.testing.assert_allclose(result.waveform, alone.waveform, atol=1e-6)


@needs_ffmpeg
def test_joined_mp3_files_are_read_to_their_end(tmp_path):
    parts = [mp3_of(tmp_path, 3.0, seed=seed) for seed in (1, 2)]
    path = tmp_path / "joined.mp3"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    result = load(path, excerpt="center", duration=2.0)
    assert result.duration == pytest.approx(6.1, abs=0.1)
    assert result.offset == pytest.approx(2.05, abs=0.05)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["ogg", "opus", "flac"])
def test_chained_ogg_is_read_to_its_end(tmp_path, suffix):
    for i, seconds in enumerate((3.0, 2.0)):
        wav = write_music(tmp_path / "a.wav", seconds, 48000, 2, seed=i)
        convert(
            wav, tmp_path / f"{i}.{suffix}", "-f", "ogg", *(("-c:a", "flac") * (suffix == "flac"))
        )
    path = tmp_path / "chained.ogg"
    path.write_bytes(b"".join((tmp_path / f"{i}.{suffix}").read_bytes() for i in (0, 1)))
    result = load(path)
    assert result.duration == pytest.approx(5.0, abs=0.05)
    assert result.decoder == "ffmpeg"


@needs_ffmpeg
@pytest.mark.parametrize(
    ("suffix", "codec", "is_lossless"),
    [
        ("wv", "wavpack", True),
        ("oga", "flac", True),
        ("spx", "libspeex", False),
        ("tta", "tta", True),
        ("m4a", "alac", True),
        ("caf", "alac", True),
        ("wma", "wmav2", False),
        ("mp2", "mp2", False),
        ("ac3", "ac3", False),
        ("webm", "libopus", False),
        ("aac", "aac", False),
        ("latm", "aac", False),
        ("ts", "aac", False),
    ],
)
def test_whatever_ffmpeg_decodes_is_read(tmp_path, suffix, codec, is_lossless):
    wav = write_music(tmp_path / "a.wav", 3.0, 32000, 2)
    try:
        path = convert(wav, tmp_path / f"a.{suffix}", "-c:a", codec)
    except subprocess.CalledProcessError:
        pytest.skip(f"this ffmpeg has no encoder {codec}")
    result = load(path, sample_rate=32000)
    assert result.duration == pytest.approx(3.0, abs=0.1)
    assert result.warnings == ()
    if is_lossless:
        np.testing.assert_array_equal(result.waveform, load(wav, sample_rate=32000).waveform)


@needs_ffmpeg
@pytest.mark.parametrize(
    "name", ["Song: One", "http:x", "-i", " lead", "trail ", "a%03d", "concat:a|b", "{}*?[a]", "'"]
)
@pytest.mark.parametrize("suffix", ["m4a", "mp3"])
def test_a_name_is_a_name_and_nothing_else(tmp_path, monkeypatch, name, suffix):
    path = convert(write_music(tmp_path / "a.wav", 2.0), tmp_path / f"a.{suffix}")
    expected = load(path).waveform
    path.rename(tmp_path / f"{name}.{suffix}")
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(load(f"{name}.{suffix}").waveform, expected)


def test_an_apple_double_beside_a_file_does_not_matter_and_is_no_audio(tmp_path):
    path = write_music(tmp_path / "song.mp3", 2.0)
    expected = load(path).waveform
    double = tmp_path / "._song.mp3"
    double.write_bytes(bytes.fromhex("00051607000200004d6163204f53205820202020") + bytes(4076))
    np.testing.assert_array_equal(load(path).waveform, expected)
    with pytest.raises(AudioError, match="AppleDouble"):
        load(double)


def test_what_is_behind_the_end_of_a_w64_file_is_no_sound(tmp_path):
    path = write_music(tmp_path / "a.w64", 2.0)
    expected = load(path).waveform
    path.write_bytes(path.read_bytes() * 2)
    np.testing.assert_array_equal(load(path).waveform, expected)


def test_channels_that_cancel_out_are_no_silence(tmp_path):
    left = music(2.0)[:, 0]
    path = write(tmp_path / "a.wav", np.stack([left, -left], axis=1), 22050, "FLOAT")
    result = load(path)
    np.testing.assert_array_equal(result.waveform, left)
    assert result.warnings == ("its channels cancel out: of them, number 1 is used",)


def test_a_constant_is_silence(tmp_path):
    with pytest.raises(AudioError, match="silent"):
        load(write(tmp_path / "a.wav", np.full((22050, 2), 0.3), 22050))


def test_a_header_with_nothing_behind_it_holds_no_audio(tmp_path):
    path = tmp_path / "tag.mp3"
    path.write_bytes(b"ID3\4\0\0\0\0\1\0" + bytes(128))
    with pytest.raises(AudioError, match="holds no audio"):
        load(path)


@needs_ffmpeg
def test_a_recording_that_was_never_closed_has_no_index(tmp_path, monkeypatch):
    path = convert(write_music(tmp_path / "a.wav", 2.0), tmp_path / "a.m4a")
    os.truncate(path, path.stat().st_size // 2)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AudioError, match=r"not decodable: no index \(moov\)"):
        load(path)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["m4a", "webm"])
def test_a_cut_file_that_ffmpeg_reads_is_as_long_as_what_is_there(tmp_path, suffix):
    wav = write_music(tmp_path / "a.wav", 12.0, 48000)
    path = convert(wav, tmp_path / f"a.{suffix}", *(("-movflags", "faststart") * (suffix == "m4a")))
    os.truncate(path, path.stat().st_size * 7 // 12)
    result = load(path, excerpt="center", duration=4.0)
    assert 6.0 < result.duration < 8.0
    assert result.offset == pytest.approx((result.duration - 4) / 2, abs=0.05)
    assert result.warnings == (f"shorter than its header: {result.duration:.1f} of 12.0 s",)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["ogg", "opus", "caf", "wma"])
def test_a_cut_file_that_does_not_say_its_length_is_known_by_its_end(tmp_path, suffix):
    path = convert(write_music(tmp_path / "a.wav", 6.0, 48000), tmp_path / f"a.{suffix}")
    assert load(path).warnings == ()
    with open(path, "ab") as file:
        file.write(b"TAG" + bytes(125))
    assert load(path).warnings == ()
    os.truncate(path, (path.stat().st_size - 128) * 2 // 3)
    result = load(path, duration=2.0)
    assert result.warnings == ("cut: the file ends in the midst of its sound",)
    assert load(path, duration=10.0).duration < 5
    with pytest.raises(AudioError, match="cut: "):
        load(path, refuse_truncated=True)


@pytest.mark.parametrize("size", [2**31, 2**62, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize(
    "head", [b"caff\0\1\0\0data%s", b"\0\0\0\1mdat%s", b"\0\0\0\x08ftyp\0\0\0\1free%s"]
)
def test_a_size_beyond_any_file_is_damage(tmp_path, head, size):
    path = tmp_path / "a.caf"
    path.write_bytes(head % size.to_bytes(8, "big") + bytes(1000))
    with pytest.raises(AudioError):
        load(path)


@needs_ffmpeg
def test_without_ffmpeg_what_needs_it_says_so_and_may_be_tried_again(tmp_path, monkeypatch):
    path = convert(write_music(tmp_path / "a.wav", 2.0), tmp_path / "a.m4a")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MachineError, match="install ffmpeg") as error:
        load(path)
    assert error.value.retry == "with ffmpeg"


@needs_ffmpeg
def test_a_text_in_a_wrapping_of_audio_is_never_followed(tmp_path):
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    for content in (b"ID3\4\0\0\0\0\0\0" + playlist, b"fLaC" + playlist, b"OggS" + playlist):
        path = tmp_path / "a.m3u8"
        path.write_bytes(content * 9)
        with pytest.raises(AudioError):
            load(path)
