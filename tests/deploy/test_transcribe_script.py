"""The command as a user types it: texts against transformers' own pipeline, and what becomes of bad files."""

import json
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import transformers

import mpq
from mpq.checkpoint.packed import load_packed, save_packed
from mpq.conf import REPOSITORY
from mpq.data import audio
from mpq.deploy.recognizers import transcript
from mpq.deploy.transcribe import open_recognizer
from mpq.models import loading
from mpq.models.processor import letters_processor

SCRIPT = REPOSITORY / "scripts" / "transcribe.py"
TINY = REPOSITORY / "mpq" / "models" / "tiny_wav2vec2"


@pytest.fixture(scope="module")
def theirs():
    """transformers' own pipeline of the shipped model."""
    return transformers.pipeline("automatic-speech-recognition", model=str(TINY), device="cpu")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The shipped model at 4 bits."""
    folder = tmp_path_factory.mktemp("packed") / "model"
    model, processor = loading.load(str(TINY))
    mpq.quantize(model, 4)
    save_packed(folder, model, processor)  # pyright: ignore[reportArgumentType]
    return folder


@pytest.fixture
def speech(tmp_path):
    """Files of every kind: two of 16 kHz, one of 44.1 kHz with two channels, one of 8 kHz."""
    rng = np.random.default_rng()
    kinds = {"a.wav": (16_000, 1), "b c.flac": (16_000, 1), "d.flac": (44_100, 2), "e.ogg": (8_000, 1)}
    return [write(tmp_path / name, babble(rng, 1.5, rate), rate, channels) for name, (rate, channels) in kinds.items()]


def babble(rng, seconds, rate):
    """Tones and noise in syllables, at which the shipped model writes something."""
    time = np.arange(round(seconds * rate)) / rate
    voice = sum(np.sin(2 * np.pi * f * time + rng.uniform(0, 6)) / (k + 1) for k, f in enumerate(range(120, 2400, 120)))
    return 0.1 * voice * np.abs(np.sin(2 * np.pi * 3 * time)) + 0.02 * rng.standard_normal(len(time))


def write(path, samples, rate, channels=1):
    soundfile.write(path, np.stack([samples] * channels, axis=1), rate)
    return path


def here(monkeypatch, *words):
    """Run the script in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words), "device=cpu"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return stop.value.code


def refused(monkeypatch, capsys, *words):
    """The one sentence with which the script ends."""
    assert here(monkeypatch, *words) == 1
    out, err = capsys.readouterr()
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert out == "" and err.endswith(f"{sentence}\n")
    return sentence


def test_texts_are_those_of_transformers_pipeline(monkeypatch, capsys, speech, theirs):
    assert here(monkeypatch, *speech) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == list(map(str, speech))
    for path, (_, text) in zip(speech, lines, strict=True):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        want = theirs({"raw": samples.mean(axis=1), "sampling_rate": rate})["text"]
        assert text == " ".join(want.split()) and len(text) > 3


def test_json_has_the_words_with_transformers_times(monkeypatch, capsys, speech, theirs):
    assert here(monkeypatch, speech[0], "json=true") == 0
    (found,) = map(json.loads, capsys.readouterr().out.splitlines())
    samples, _ = soundfile.read(speech[0], dtype="float32")
    want = theirs({"raw": samples, "sampling_rate": 16_000}, return_timestamps="word")
    assert found["file"] == str(speech[0]) and found["seconds"] == 1.5
    assert [word["word"] for word in found["words"]] == [word["text"] for word in want["chunks"]]
    times = [[word["start"], word["end"]] for word in found["words"]]
    np.testing.assert_allclose(times, [word["timestamp"] for word in want["chunks"]], atol=1e-3)


def test_one_file_prints_its_text_alone(monkeypatch, capsys, speech, theirs, caplog):
    assert here(monkeypatch, speech[1]) == 0
    samples, _ = soundfile.read(speech[1], dtype="float32")
    text = capsys.readouterr().out
    assert text.split() == theirs({"raw": samples, "sampling_rate": 16_000})["text"].split()
    assert here(monkeypatch, speech[1], f"model={TINY.name}", "language=de") == 0
    assert capsys.readouterr().out == text
    assert "language= has no effect here: the model is for one language" in caplog.messages


def test_a_file_with_an_equals_sign_in_its_name(monkeypatch, capsys, speech, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("a=b.wav", "model=b.wav"):
        shutil.copy(speech[0], name)
    assert here(monkeypatch, "a.wav", "a=b.wav", "./model=b.wav") == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["a.wav", "a=b.wav", "model=b.wav"] and len({line[1] for line in lines}) == 1
    sentence = refused(monkeypatch, capsys, "a.wav", "modle=b.wav")
    assert sentence.startswith("error: unknown argument 'modle=b.wav'; the arguments are AUDIO ..., model=, json=, ")
    assert sentence.endswith("; a file of that name is written ./modle=b.wav")


def test_a_bad_file_costs_one_sentence_and_the_status(monkeypatch, capsys, speech, tmp_path):
    bad = {
        "empty.wav": b"",
        "text.wav": b"this is no audio",
        "cut.flac": speech[1].read_bytes()[:2_000],
        "folder.wav": None,
    }
    for name, content in bad.items():
        path = tmp_path / name
        path.mkdir() if content is None else path.write_bytes(content)
    write(tmp_path / "short.wav", np.ones(30) / 3, 16_000)
    paths = [tmp_path / name for name in (*bad, "short.wav", "missing.wav")]
    assert here(monkeypatch, paths[0], speech[0], *paths[1:], speech[1]) == 1
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(speech[0]), str(speech[1])]
    errors = err.splitlines()
    assert len(errors) == len(paths)
    for path, error in zip(paths, errors, strict=True):
        assert error.startswith(f"error: {path} ") and error.count(str(path)) == 1


def test_no_model_is_one_sentence(monkeypatch, capsys, speech):
    sentence = refused(monkeypatch, capsys, speech[0], "model=no/such-model")
    assert sentence.startswith("error: the model no/such-model is neither a folder")


def edited(folder, **changes):
    """Change entries of `quantization_config`, and drop the checksum that would tell first."""
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= changes
    del config["quantization_config"]["config_sha256"]
    (folder / "config.json").write_text(json.dumps(config))


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def not_ctc(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["Wav2Vec2ForPreTraining"]}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: edited(folder, quant_method="gptq"), "gptq"),
        (lambda folder: edited(folder, format_version=0), "version"),
        (cut, "model.safetensors"),
        (not_ctc, "not fine-tuned for speech recognition"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
    ],
)
def test_a_model_that_will_not_do_is_one_sentence(monkeypatch, capsys, packed, speech, tmp_path, damage, sentence):
    folder = tmp_path / "model"
    shutil.copytree(packed, folder)
    damage(folder)
    assert sentence in refused(monkeypatch, capsys, speech[0], f"model={folder}")


def test_outputs_that_are_no_numbers_are_no_empty_text(monkeypatch, capsys, tmp_path, speech):
    model, processor = loading.load(str(TINY))
    torch.nn.init.constant_(model.get_parameter("lm_head.bias"), torch.nan)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    sentence = refused(monkeypatch, capsys, speech[0], f"model={tmp_path / 'model'}")
    assert sentence.startswith("error: the model's outputs are NaN")


def test_an_onnx_file_that_will_not_do_is_one_sentence(monkeypatch, capsys, speech, tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    (tmp_path / "bad.onnx.zst").write_bytes(b"no frame")
    told = {"bad.onnx": "is not an ONNX file that can be loaded", "none.onnx": "is not a file"}
    for name, sentence in (told | {"bad.onnx.zst": "is damaged", "none.onnx.zst": "is not a file"}).items():
        assert sentence in refused(monkeypatch, capsys, speech[0], f"model={tmp_path / name}")


def test_a_packed_folder_says_what_the_evaluated_model_says(monkeypatch, capsys, packed, speech):
    assert here(monkeypatch, *speech, f"model={packed}") == 0
    model, processor = load_packed(packed)
    for path, line in zip(speech, capsys.readouterr().out.splitlines(), strict=True):
        samples = audio.load(path, 16_000)
        inputs = processor(samples, sampling_rate=16_000, return_tensors="pt").input_values
        with torch.no_grad():
            want = processor.batch_decode(model(inputs).logits.argmax(-1))[0]
        assert line.split("\t")[1] == " ".join(want.split())


def test_a_long_recording_agrees_away_from_the_seams(tmp_path):
    """In chunks of 4 s with margins of 1 s most frames say what they say without chunks, and all stay in place."""
    rng = np.random.default_rng()
    recognizer = open_recognizer(str(TINY), "cpu")
    samples = np.concatenate([babble(rng, 1.7, 16_000) for _ in range(8)]).astype(np.float32)
    heard = []

    def logits(chunk):
        heard.append(len(chunk))
        return recognizer.logits(chunk)

    from mpq.deploy.chunks import chunked_logits

    assert recognizer.step == 320
    parts = chunked_logits(logits, np.array_split(samples, 7), len(samples), 64_000, 16_000, 320)
    got = np.concatenate(list(parts)).argmax(-1)
    whole = recognizer.logits(samples).argmax(-1)
    assert len(heard) > 5 and max(heard) == 64_000 and got.shape == whole.shape
    assert (got == whole).mean() > 0.8
    short = audio.Recording(64_000, [samples[:64_000]])
    assert recognizer.transcribe(short, 4.0, 1.0) == recognizer.transcribe(short, 100.0, 1.0)


def test_the_chunks_are_transformers_own(tmp_path, theirs):
    """The same text as the pipeline with chunk_length_s, which normalises and cuts as we do."""
    rng = np.random.default_rng()
    recognizer = open_recognizer(str(TINY), "cpu")
    samples = np.concatenate([babble(rng, 1.7, 16_000) for _ in range(6)]).astype(np.float32)
    want = theirs({"raw": samples, "sampling_rate": 16_000}, chunk_length_s=4, stride_length_s=1)["text"]
    got = recognizer.transcribe(audio.Recording(len(samples), [samples]), 4.0, 1.0)
    assert got.text == " ".join(want.split())
    assert got.words and got.words[-1].end <= len(samples) / 16_000
    assert [word.word for word in got.words] == got.text.split()


def test_words_are_spelled_as_the_text(monkeypatch):
    """transformers' tokenizer lowers the text of `do_lower_case`, but not its words."""
    tokenizer = letters_processor().tokenizer
    monkeypatch.setattr(tokenizer, "do_lower_case", True)
    found = transcript(np.array(tokenizer("SAID TWICE").input_ids), tokenizer, 0.02)
    assert found.text == "said twice" and found.words is not None
    assert [word.word for word in found.words] == ["said", "twice"]


def test_help_is_quick():
    """Nothing heavy is imported for it; no clock is asked."""
    code = (
        "import runpy, sys; sys.argv = ['transcribe.py', '--help']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit: print([name for name in ('torch', 'transformers', 'lightning') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert run.stdout.splitlines()[-1] == "[]", run.stdout
