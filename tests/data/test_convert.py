"""What soundfile doesn't read goes through ffmpeg, of which a script of a few lines takes the place here."""

import os
import sys

import numpy as np
import pytest
from recordings import record, tone

import mpq  # noqa: F401  (before torchaudio: it makes it importable)
from mpq.data import audio
from mpq.data.librispeech import find, recordings

M4A = b"\0\0\0\x20ftypM4A " + bytes(100)
WEBM = b"\x1a\x45\xdf\xa3" + bytes(100)


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """An `ffmpeg` that writes the same tone whatever it reads, but refuses "damaged" and reports the end of "cut"."""
    folder = tmp_path / "bin"
    whole = record(folder / "tone.wav", tone(1.0, 44_100), 44_100)
    program = folder / "ffmpeg"
    program.write_text(
        f"#!{sys.executable}\nimport shutil, sys\n"
        "if 'cut' in sys.argv[sys.argv.index('-i') + 1]:\n"
        "    print('[in#0/matroska,webm @ 0x55] File ended prematurely', file=sys.stderr)\n"
        "if 'damaged' in sys.argv[sys.argv.index('-i') + 1]: sys.exit('first line\\nmoov atom not found')\n"
        f"shutil.copy({str(whole)!r}, sys.argv[-1])\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("name", "content"), [("a.m4a", M4A), ("a.webm", WEBM), ("a.wav", M4A), ("a.mp3", WEBM), ("a.aac", b"\xff\xf1" * 9)]
)
def test_other_formats_are_decoded_by_ffmpeg(tmp_path, ffmpeg, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert audio.header(path) == 1.0
    heard = audio.load(path, 16_000)
    with audio.stream(path, 16_000) as recording:
        np.testing.assert_allclose(np.concatenate(list(recording.blocks)), heard, atol=2e-6)
    assert len(heard) == 16_000


def test_without_ffmpeg_the_sentence_has_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "a talk.m4a"
    path.write_bytes(M4A)
    with pytest.raises(audio.BadAudioError) as caught:
        audio.header(path)
    assert str(caught.value) == (
        f"{path} has a format that needs ffmpeg: install it, or convert the file with "
        f"`ffmpeg -i '{path}' -ar 16000 '{tmp_path / 'a talk.wav'}'`"
    )
    record(tmp_path / "b.wav", tone(1.0))
    found = recordings(find(tmp_path).root)
    assert [u.id for u in found.utterances] == ["b.wav"] and found.skipped == [str(caught.value)]


def test_what_ffmpeg_cannot_read_is_one_sentence(tmp_path, ffmpeg):
    path = tmp_path / "damaged.mkv"
    path.write_bytes(WEBM)
    with pytest.raises(audio.BadAudioError, match=r"damaged.mkv is not readable audio: ffmpeg says moov atom"):
        audio.load(path, 16_000)


def test_a_film_that_ends_too_early_is_refused_although_ffmpeg_decodes_what_is_there(tmp_path, ffmpeg):
    path = tmp_path / "cut.webm"
    path.write_bytes(WEBM)
    for read in (audio.header, lambda path: audio.load(path, 16_000)):
        with pytest.raises(audio.BadAudioError, match=r"cut.webm is truncated: ffmpeg says .*File ended prematurely"):
            read(path)


def test_what_is_no_audio_by_name_and_content_is_not_given_to_ffmpeg(tmp_path, ffmpeg):
    (tmp_path / "a.wav").write_text("no audio at all, but text " * 10)
    with pytest.raises(audio.BadAudioError, match=r"a.wav is not readable audio"):
        audio.load(tmp_path / "a.wav", 16_000)


def test_a_format_that_soundfile_knows_needs_no_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert len(audio.load(record(tmp_path / "a.aiff", tone(1.0), format="AIFF"), 16_000)) == 16_000
