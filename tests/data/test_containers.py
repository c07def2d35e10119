"""A file is as long as what can be decoded of it, whatever its header says; a file that was cut is refused."""

import numpy as np
import pytest
from containers import RATE, counting, encoded, mp3, speech, streamed_flac, wav

import mpq  # noqa: F401  (before torchaudio: it makes it importable)
from mpq.data import audio

ID3 = b"ID3\4\0\0\0\0\0\x14" + bytes(20)


def lengths(path, content):
    """The seconds of a file by its header, as a whole, and piece by piece, which all must be the same."""
    path.write_bytes(content)
    whole = audio.load(path, RATE)
    with audio.stream(path, RATE) as recording:
        blocks = list(recording.blocks)
    assert recording.samples == sum(map(len, blocks)) == len(whole)
    assert audio.header(path) == pytest.approx(len(whole) / RATE, abs=1e-3)
    return len(whole) / RATE


def refused(path, content, complaint="truncated"):
    path.write_bytes(content)
    for read in (audio.header, lambda path: audio.load(path, RATE)):
        with pytest.raises(audio.BadAudioError, match=rf"{path.name} is {complaint}"):
            read(path)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0, 0x7FFF0000, 0x7FFFF000, 0x80000000, 0x7FFFFFFF])
def test_wav_from_a_pipe_is_heard_to_its_end(tmp_path, size):
    said = speech(1.5)
    for content in (wav(said, size), wav(said, size, whole=0), wav(said, size, whole=2**32 - 1)):
        assert lengths(tmp_path / "a.wav", content) == 1.5
    np.testing.assert_allclose(audio.load(tmp_path / "a.wav", RATE), said, atol=1e-4)
    refused(tmp_path / "b.wav", wav(said, size)[:44], "empty")


def test_wav_without_samples_or_cut_is_refused(tmp_path):
    said = speech(1.5)
    refused(tmp_path / "a.wav", wav(said, 2 * len(said))[:-1000])
    bare = encoded(said[:0], "WAV")
    extra = b"LIST" + (4).to_bytes(4, "little") + b"abcd"
    refused(tmp_path / "b.wav", bare, "empty")
    refused(tmp_path / "c.wav", wav(said[:0], 0, whole=len(bare) + len(extra) - 8) + extra, "empty")


def test_rf64_is_read_and_a_cut_one_refused(tmp_path):
    whole = encoded(speech(1.0), "RF64", subtype="PCM_16")
    assert lengths(tmp_path / "a.wav", whole) == 1.0
    refused(tmp_path / "b.wav", whole[:-1000])


@pytest.mark.parametrize("seconds", [1.0, 4097 / RATE, 30.0])
def test_flac_from_a_pipe_is_heard_to_its_end(tmp_path, seconds):
    whole = streamed_flac(speech(seconds))
    assert lengths(tmp_path / "a.flac", whole) == pytest.approx(seconds, abs=1e-6)
    refused(tmp_path / "b.flac", whole[:-5])
    refused(tmp_path / "c.flac", whole[: len(whole) // 2])


def test_mp3_is_heard_to_its_end_whatever_its_header_says(tmp_path):
    header, *frames = mp3(speech(6.0))
    body, seconds = b"".join(frames), pytest.approx(6.0, abs=0.1)
    for content in (
        header + body,
        body,
        ID3 + body + b"TAG" + bytes(125),
        counting(header, len(frames) // 2) + body,
        counting(header, len(frames) + 1) + body,
        b"".join(frames[:20]) + b"damage" * 50 + b"".join(frames[20:]),
    ):
        assert lengths(tmp_path / "a.mp3", content) == seconds
    assert lengths(tmp_path / "a.mp3", header + body + ID3 + header + body) == pytest.approx(12.0, abs=0.2)
    assert lengths(tmp_path / "a.mp3", body[700:]) == pytest.approx(6.0, abs=0.3)  # from the middle of a frame on


def test_the_end_of_an_mp3_without_header_is_decoded(tmp_path):
    header, *frames = mp3(speech(6.0))
    (tmp_path / "a.mp3").write_bytes(header + b"".join(frames))
    (tmp_path / "b.mp3").write_bytes(b"".join(frames))
    plain, bare = (audio.load(tmp_path / name, RATE) for name in ("a.mp3", "b.mp3"))
    delay = 1105 - 529  # samples of LAME's encoder, which its header tells of
    np.testing.assert_allclose(bare[delay : delay + len(plain)], plain, atol=1e-5)


def test_a_cut_mp3_with_header_is_refused(tmp_path):
    header, *frames = mp3(speech(6.0))
    for cut in (header + b"".join(frames[:-1]), header + b"".join(frames[: len(frames) // 2])):
        refused(tmp_path / "a.mp3", cut)
        refused(tmp_path / "b.mp3", ID3 + cut)
    refused(tmp_path / "c.mp3", (header + b"".join(frames))[:-3])


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_of_every_rate(tmp_path, rate, channels):
    samples = np.stack([speech(1.0)] * channels, axis=1)
    content = encoded(samples, "MP3", rate, bitrate_mode="CONSTANT")
    assert lengths(tmp_path / "a.mp3", content) == pytest.approx(len(samples) / rate, abs=1e-3)
    bare = content[content.find(content[:2], 2) :]  # the header is a frame of its own
    assert lengths(tmp_path / "b.mp3", bare) == pytest.approx(len(samples) / rate, abs=0.2)


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS"])
def test_all_parts_of_a_chained_ogg_are_heard(tmp_path, kind):
    parts = [encoded(speech(seconds, seed), "OGG", subtype=kind) for seed, seconds in enumerate((0.7, 1.1, 0.5))]
    assert lengths(tmp_path / "a.ogg", b"".join(parts)) == pytest.approx(2.3, abs=0.01)
    alone = [encoded(speech(1.1, 1), "OGG", subtype=kind), encoded(speech(0.7), "OGG", subtype=kind)]
    (tmp_path / "b.ogg").write_bytes(alone[0])
    (tmp_path / "c.ogg").write_bytes(alone[0] + alone[1])
    first, both = (audio.load(tmp_path / name, RATE) for name in ("b.ogg", "c.ogg"))
    np.testing.assert_array_equal(both[: len(first)], first)


def test_parts_of_a_chained_ogg_can_differ_in_rate_and_channels(tmp_path):
    loud = np.stack([speech(3.0)] * 2, axis=1)
    content = encoded(speech(1.0), "OGG") + encoded(loud, "OGG", 48_000, subtype="OPUS")
    assert lengths(tmp_path / "a.ogg", content) == pytest.approx(2.0, abs=0.01)


def test_only_a_chain_that_is_silent_to_its_end_is_silent(tmp_path):
    parts = [encoded(samples, "OGG") for samples in (np.zeros(RATE), speech(1.0))]
    assert lengths(tmp_path / "a.ogg", parts[0] + parts[1]) == lengths(tmp_path / "b.ogg", parts[1] + parts[0])
    (tmp_path / "c.ogg").write_bytes(parts[0] + parts[0])
    with pytest.raises(audio.BadAudioError, match=r"c\.ogg is silent"):
        audio.load(tmp_path / "c.ogg", RATE)


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS"])
def test_a_cut_chained_ogg_is_refused(tmp_path, kind):
    first, second = (encoded(speech(20.0, seed), "OGG", subtype=kind) for seed in (0, 1))
    for content in (
        (first + second)[: -len(second) // 2],
        first + second[: second.rfind(b"OggS")],  # whole pages, but not the last
        first + second[: second.rfind(b"OggS") + 10],
        first[:-100] + second,
        first[: first.rfind(b"OggS")] + second,
    ):
        refused(tmp_path / "a.ogg", content)
    assert lengths(tmp_path / "b.ogg", first + second + b"trailing") == pytest.approx(40.0, abs=0.01)
