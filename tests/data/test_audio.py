import os

import numpy as np
import pytest
import soundfile
from recordings import FORMATS, cut, record, tone
from scipy.signal import resample_poly

import mpq  # noqa: F401  (before torchaudio: it makes it importable)
from mpq.data import audio


@pytest.mark.parametrize("suffix", FORMATS)
def test_reads_every_format(tmp_path, suffix):
    samples = tone(1.3)
    path = record(tmp_path / f"a{suffix}", samples)
    heard = audio.load(path, 16_000)
    assert audio.header(path) == pytest.approx(1.3, abs=0.03)
    assert heard.dtype == np.float32 and heard.ndim == 1
    assert len(heard) == pytest.approx(len(samples), abs=400)
    exact = suffix in (".flac", ".wav")
    assert np.corrcoef(heard[: len(samples)], samples[: len(heard)])[0, 1] > (0.99999 if exact else 0.9)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resamples_as_scipy_does(tmp_path, rng, rate):
    time = np.arange(rate) / rate
    samples = sum(0.1 * np.sin(2 * np.pi * rng.uniform(80, 2_500) * time + rng.uniform(0, 6)) for _ in range(5))
    heard = audio.load(record(tmp_path / "a.wav", samples, rate, subtype="FLOAT", format="WAV"), 16_000)
    divisor = np.gcd(rate, 16_000)
    reference = resample_poly(samples, 16_000 // divisor, rate // divisor)
    assert len(heard) == 16_000
    middle = slice(500, -500)  # the two filters treat the ends differently
    assert np.abs(heard - reference)[middle].max() < 0.01


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("suffix", [".flac", ".ogg"])
def test_a_stream_gives_piece_by_piece_what_load_gives_whole(tmp_path, rng, monkeypatch, rate, suffix):
    samples = rng.normal(0, 0.1, (int(rng.uniform(1, 2) * rate), 2))
    path = record(tmp_path / f"a{suffix}", samples, rate)
    whole = audio.load(path, 16_000)
    monkeypatch.setattr(audio, "_BLOCK", int(rng.integers(500, 4_000)))
    with audio.stream(path, 16_000) as recording:
        blocks = list(recording.blocks)
    assert recording.samples == sum(map(len, blocks)) == len(whole) and len(blocks) > 1
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=2e-6)
    assert all(block.dtype == np.float32 for block in blocks)


def test_a_rate_that_no_laptop_can_turn_into_another_is_named(tmp_path):
    path = record(tmp_path / "a.wav", tone(1.0), 99_991)
    for read in (audio.load, taken):
        with pytest.raises(
            audio.BadAudioError, match=r"a.wav has an unusual sample rate, 99991 Hz: convert it to 16000 Hz"
        ):
            read(path, 16_000)


def test_a_name_that_is_not_utf8_is_told_in_what_can_be_printed(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    path.write_bytes(record(tmp_path / "a.wav", tone(1.0)).read_bytes())
    with pytest.raises(audio.BadAudioError, match=r"caf\\xe9.wav has a name that is not UTF-8: rename it"):
        audio.load(path, 16_000)


def taken(path, rate):
    """Every block of a stream."""
    with audio.stream(path, rate) as recording:
        return list(recording.blocks)


def test_averages_channels(tmp_path):
    left, right = tone(0.5), tone(0.5, hertz=500)
    path = record(tmp_path / "a.wav", np.stack([left, right], axis=1), subtype="FLOAT", format="WAV")
    np.testing.assert_allclose(audio.load(path, 16_000), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.999])
def test_names_a_truncated_file(tmp_path, suffix, share):
    path = cut(record(tmp_path / f"cut{suffix}", tone(2.0) + 0.01 * np.random.randn(32_000)), share)
    with pytest.raises(audio.BadAudioError, match=rf"cut\{suffix} is (truncated|not readable audio)"):
        audio.load(path, 16_000)


@pytest.mark.parametrize("suffix", [".wav", ".ogg", ".opus"])
def test_the_header_tells_of_a_cut(tmp_path, suffix):
    path = cut(record(tmp_path / f"cut{suffix}", tone(2.0)), 0.9)
    with pytest.raises(audio.BadAudioError, match="truncated"):
        audio.header(path)


@pytest.mark.parametrize("suffix", [".ogg", ".opus"])
def test_a_lost_last_page_is_a_cut(tmp_path, suffix):
    """What is left is whole pages, but none is marked as the last."""
    path = record(tmp_path / f"cut{suffix}", tone(30.0) + 0.01 * np.random.randn(480_000))
    content = path.read_bytes()
    path.write_bytes(content[: content.rfind(b"OggS")])
    with pytest.raises(audio.BadAudioError, match="truncated"):
        audio.load(path, 16_000)


def test_a_streamed_wav_is_no_cut_one(tmp_path):
    path = record(tmp_path / "a.wav", tone(0.5))
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"  # lengths unknown
    path.write_bytes(content)
    assert len(audio.load(path, 16_000)) == 8_000


def test_a_wav_with_more_chunks_is_whole(tmp_path):
    path = record(tmp_path / "a.wav", tone(0.5))
    content = path.read_bytes()
    extra = b"LIST" + (3).to_bytes(4, "little") + b"abc\0"  # an odd length, padded
    path.write_bytes(content[:12] + extra + content[12:] + extra)
    assert len(audio.load(path, 16_000)) == 8_000


def _not_audio(path):
    path.write_text("no audio at all, but text " * 10)


def _nan(path):
    samples = tone(0.5)
    samples[100] = np.nan
    soundfile.write(path, samples, 16_000, subtype="FLOAT")


def _endless(path):
    soundfile.write(path, tone(0.5), 16_000)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the low bits of STREAMINFO's number of samples, and the four bytes after it
    content[22:26] = b"\xff\xff\xff\xff"
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "write", "complaint"),
    [
        ("zero.wav", lambda path: path.write_bytes(b""), "zero.wav is empty"),
        ("none.flac", lambda path: soundfile.write(path, np.zeros(0), 16_000), "none.flac is empty"),
        ("none.wav", lambda path: soundfile.write(path, np.zeros(0), 16_000), "none.wav is empty"),
        ("short.wav", lambda path: soundfile.write(path, tone(0.02), 16_000), "short.wav is too short: 0.020 s"),
        ("mute.flac", lambda path: soundfile.write(path, np.zeros(16_000), 16_000), "mute.flac is silent"),
        ("text.flac", _not_audio, "text.flac is not readable audio"),
        ("nan.wav", _nan, "nan.wav has samples that are NaN or infinite"),
        ("endless.flac", _endless, "endless.flac is damaged: its header states"),
        ("missing.wav", lambda path: None, "missing.wav is not readable audio"),
        ("talks", lambda path: path.mkdir(), r"talks is a folder: name the files in it \(FOLDER/\*\.wav\)"),
    ],
)
def test_names_a_bad_file(tmp_path, monkeypatch, name, write, complaint):
    write(tmp_path / name)
    monkeypatch.setattr(audio, "_BLOCK", 3_000)
    for read in (audio.load, taken):
        with pytest.raises(audio.BadAudioError, match=complaint) as caught:
            read(tmp_path / name, 16_000)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("hum", [0.0, 0.01])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus"])
def test_of_channels_that_cancel_the_loudest_is_taken(tmp_path, rng, monkeypatch, hum, suffix):
    said = tone(1.5) + 0.05  # an offset, common to both, is no sound
    noise = hum * rng.standard_normal((len(said), 2))
    both = np.stack([0.8 * said, 0.1 - said], axis=1) + noise
    path = record(tmp_path / f"a{suffix}", both)
    alone = audio.load(record(tmp_path / f"b{suffix}", both[:, 1]), 16_000)
    heard = audio.load(path, 16_000)
    assert len(heard) == len(alone) and np.corrcoef(heard, alone)[0, 1] > 0.99
    monkeypatch.setattr(audio, "_BLOCK", 3_000)
    np.testing.assert_array_equal(np.concatenate(taken(path, 16_000)), heard)


@pytest.mark.parametrize("channels", [2, 3, 8])
def test_channels_of_which_one_is_mute_or_that_are_unlike_are_averaged(tmp_path, rng, channels):
    one = np.zeros((8_000, channels))
    one[:, channels // 2] = tone(0.5)
    for samples in (one, 0.1 * rng.standard_normal((8_000, channels))):
        path = record(tmp_path / "a.wav", samples, subtype="FLOAT", format="WAV")
        np.testing.assert_allclose(audio.load(path, 16_000), samples.mean(axis=1), atol=1e-6)
