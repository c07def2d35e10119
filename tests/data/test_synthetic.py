import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from omegaconf import OmegaConf

from mpq.data import audio
from mpq.data.librispeech import read_split
from mpq.data.synthetic import corpus, espeak, grammar, voices
from mpq.errors import UserError

UTTERANCES = {"train": 77, "test-clean": 2, "test-other": 3}  # the fourth heard voice breathes: its noise is seeded
CONF = Path(__file__).resolve().parents[2] / "conf" / "data" / "synthetic.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus of 77 + 2 + 3 utterances, made by one process at a time."""
    return corpus.make(tmp_path_factory.mktemp("first"), UTTERANCES, seed=5, processes=1)


def test_two_processes_make_the_same(folder, tmp_path):
    again = corpus.make(tmp_path, UTTERANCES, seed=5, processes=2)
    assert again.name == folder.name and again != folder
    assert corpus.content_hash(again) == corpus.content_hash(folder)


def test_a_killed_run_is_taken_up(folder, tmp_path):
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    (copy / "corpus.json").unlink()  # it is written last
    shutil.rmtree(copy / "test-other")
    half = copy / "train" / "101" / "0"
    half.rename(half.with_name(".0.4711.partial"))
    kept = {path: path.stat().st_mtime_ns for path in copy.rglob("*.flac") if ".partial" not in str(path)}
    assert corpus.make(tmp_path, UTTERANCES, seed=5, processes=2) == copy
    assert corpus.content_hash(copy) == corpus.content_hash(folder)
    assert kept and all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert len(read_split(copy, "train").utterances) == 77


def test_a_lost_chapter_is_made_again(folder, tmp_path):
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "test-clean")
    corpus.make(tmp_path, UTTERANCES, seed=5, processes=1)
    assert corpus.content_hash(copy) == corpus.content_hash(folder)
    assert len(read_split(copy, "test-clean").utterances) == 2


def test_a_whole_corpus_is_not_touched(folder, monkeypatch):
    monkeypatch.setattr(corpus, "_make_chapters", None)
    assert corpus.make(folder.parent, UTTERANCES, seed=5) == folder


def test_the_reader_reads_it(folder):
    for split, count in UTTERANCES.items():
        utterances = read_split(folder, split).utterances
        assert len(utterances) == count
        assert all(1 < utterance.seconds < 12 for utterance in utterances)
        assert all(set(u.text.split()) <= grammar.vocabulary() for u in utterances)
        speakers = {str(v.speaker) for v in (voices.UNHEARD if split.endswith("other") else voices.HEARD)}
        assert {utterance.speaker for utterance in utterances} <= speakers
    path = utterances[0].path
    assert soundfile.info(path).samplerate == 16_000 and soundfile.info(path).channels == 1
    assert 0.1 < np.abs(audio.load(path, 16_000)).max() < 1


def test_the_settings_stand_beside_the_hash(folder):
    record = json.loads((folder / "corpus.json").read_text())
    assert record["seed"] == 5 and record["utterances"] == UTTERANCES and len(record["hash"]) == 64


def test_other_settings_go_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(corpus, "_make_chapters", lambda root, chapters, processes: {"none": "0"})
    monkeypatch.setattr(corpus, "_whole", lambda root, chapters: False)
    folders = {corpus.make(tmp_path, {"train": size}, seed) for size in (1, 2) for seed in (0, 1)}
    assert len(folders) == 4


def test_seeds_say_other_things():
    sentences = [[grammar.sentence(np.random.default_rng(seed)) for _ in range(9)] for seed in (0, 0, 1)]
    assert sentences[0] == sentences[1] != sentences[2]


def test_there_are_words_enough():
    heard = Counter()
    rng = np.random.default_rng(0)
    for _ in range(20_000):
        heard.update(grammar.sentence(rng).split())
    assert len(grammar.vocabulary()) >= 450
    assert set(heard) == grammar.vocabulary()  # all of them are said
    assert all(set(word) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ'") for word in heard)


def test_there_are_voices_enough_and_the_unheard_are_unheard():
    def sound(voice):
        return voice.accent, voice.variant, voice.pitch, voice.speed

    assert len({sound(voice) for voice in voices.HEARD}) == 36
    assert len({sound(voice) for voice in voices.UNHEARD}) == len(voices.UNHEARD) == 12
    assert not {voice.variant for voice in voices.HEARD} & {voice.variant for voice in voices.UNHEARD}
    speakers = [voice.speaker for voice in voices.HEARD + voices.UNHEARD]
    assert len(set(speakers)) == len(speakers)


def test_every_voice_is_in_the_wheel():
    """eSpeak NG takes an unknown variant for none and says nothing."""
    import espeakng_loader

    data = Path(espeakng_loader.get_data_path())
    variants = {path.name for path in (data / "voices" / "!v").iterdir()}
    assert {voice.variant for voice in voices.HEARD + voices.UNHEARD} <= variants


def test_the_default_corpus_is_big_enough():
    utterances = OmegaConf.load(CONF).corpus.utterances
    assert set(utterances) == set(corpus.SPLITS)
    assert all(count >= 500 for split, count in utterances.items() if split != "train")
    heard = {c.voice.speaker for c in corpus.plan(utterances, 0) if c.split == "train"}
    tested = {c.voice.speaker for c in corpus.plan(utterances, 0) if c.split.endswith("clean")}
    assert tested <= heard and len(heard) >= 20


def test_chapters_differ_in_their_seeds():
    chapters = list(corpus.plan({"train": 60, "dev-other": 26}, 7))
    assert [(c.split, c.number, c.utterances) for c in chapters] == [
        *(("train", 0, 25), ("train", 1, 25), ("train", 2, 10)),
        *(("dev-other", 0, 25), ("dev-other", 1, 1)),
    ]
    assert len({c.seed for c in chapters}) == len(chapters)


@pytest.mark.parametrize("decibels", [0.0, 12.0, 40.0])
def test_noise_is_as_loud_as_asked(rng, decibels):
    speech = 0.1 * rng.standard_normal(50_000)
    noise = voices.add_noise(speech, decibels, rng) - speech
    assert 10 * np.log10(np.mean(speech**2) / np.mean(noise**2)) == pytest.approx(decibels, abs=1e-6)


def test_an_echo_decays(rng):
    click = np.zeros(16_000)
    click[0] = 1.0
    room = voices.add_echo(click, 0.3, 16_000, rng)
    assert room[0] == pytest.approx(1.0, abs=1e-9) and len(room) == len(click)
    assert np.sum(room[1:] ** 2) == pytest.approx(0.25, rel=0.05)
    early, late = np.sum(room[1:480] ** 2), np.sum(room[4_320:4_800] ** 2)  # 0.27 s apart: 54 dB
    assert 10 * np.log10(early / late) == pytest.approx(54, abs=6)


def test_a_missing_library_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)  # as if it were not installed
    espeak._library.cache_clear()
    with pytest.raises(UserError, match=r"eSpeak NG, which can't be loaded .*pip install espeakng-loader"):
        espeak.speak("HELLO", voices.HEARD[0])


DEEP = """
import sys, espeakng_loader, numpy
if sys.argv[1]: espeakng_loader.get_data_path = lambda: sys.argv[1]
from mpq.data.synthetic import espeak, voices
numpy.save(sys.argv[2], espeak.speak("a deep path", voices.HEARD[0])[0])
"""


def spoken(data, file, **environment):
    words = [sys.executable, "-c", DEEP, str(data), str(file)]
    return subprocess.run(words, capture_output=True, text=True, env=os.environ | environment)


def test_data_at_a_deep_path_are_read_through_a_link_that_goes_away(tmp_path):
    import espeakng_loader

    deep = tmp_path / ("workspace/" * 20) / "espeak-ng-data"
    deep.parent.mkdir(parents=True)
    deep.symlink_to(espeakng_loader.get_data_path())
    short = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        assert spoken("", tmp_path / "plain.npy").returncode == 0
        done = spoken(deep, tmp_path / "deep.npy", TMPDIR=str(short))
        assert done.returncode == 0, done.stderr
        assert np.array_equal(np.load(tmp_path / "plain.npy"), np.load(tmp_path / "deep.npy"))
        assert not list(short.iterdir())
        refused = spoken(deep, tmp_path / "none.npy", TMPDIR=str(deep.parent))
        assert "at most 159 bytes" in refused.stderr and f"has {len(str(deep))}" in refused.stderr
    finally:
        short.rmdir()


def test_what_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(UserError, match="no split 'tests'; it can have train, dev-clean"):
        corpus.make(tmp_path, {"tests": 3}, seed=0)
    assert not list(tmp_path.iterdir())
