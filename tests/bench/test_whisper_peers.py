"""The bench of a Whisper on random weights: the systems write one text, peers that are missing have a row."""

import importlib.util
import struct

import numpy as np
import onnxruntime
import pytest
from tiny_whisper import whisper

from mpq.bench import whisper as bench
from mpq.bench import whisper_systems
from mpq.bench.options import Whisper as Options
from mpq.bench.whisper_files import Files
from mpq.bench.whisper_systems import LATER, description
from mpq.deploy import export_seq2seq
from mpq.deploy.log_mel import LogMel
from mpq.deploy.runtime_seq2seq import DECODER, ENCODER, OnnxWhisper
from mpq.deploy.vocabulary import read_vocabulary
from mpq.errors import UserError
from mpq.models.loading import load

SYSTEMS = ("onnxruntime_float32", "ctranslate2_int8", "ours_memory_trained", "ours_speed_sized")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A model's folder, and the folder of the files made from it, by one trace, which takes most of the time."""
    root = tmp_path_factory.mktemp("bench")
    model, processor = whisper()
    model.save_pretrained(root / "model")
    processor.save_pretrained(root / "model")
    (root / "model" / "normalizer.json").write_text("{}")
    trace, made = export_seq2seq.trace, []

    def once(*arguments):
        made[:] = made or [trace(*arguments)]
        return {name: program.clone() for name, program in made[0].items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_seq2seq, "trace", once)
        files = Files(root / "model", {}, root / "files")
        files.float_onnx(), files.split_onnx()
    return files


def options(kept, speech_folder, **more):
    chosen = {"systems": SYSTEMS, "repeats": 0, "utterances": 3, "silence": 2.0}
    return Options(
        folder=str(kept.model), root=str(speech_folder), split="clean", files=str(kept.folder), **chosen | more
    )


def test_the_systems_hear_the_same_recordings(kept, speech_folder):
    rows = bench.run(options(kept, speech_folder))
    good = {row["system"]: row for row in rows if "problem" not in row}
    problems = {row["system"]: row["problem"] for row in rows if "problem" in row}
    assert set(good) >= {"torch_float32", "onnxruntime_float32"} and set(good) | set(problems) >= set(SYSTEMS)
    for name in ("memory_trained", "speed_sized"):
        assert f"{name.split('_')[1]}= names no packed folder" in problems[f"ours_{name}"]
    if importlib.util.find_spec("ctranslate2") is None:
        assert "ctranslate2 is not installed" in problems["ctranslate2_int8"]
    wanted, found = good["torch_float32"], good["onnxruntime_float32"]
    assert found["wer"] == wanted["wer"] > 0 and found["loops"] == wanted["loops"]
    assert found["words"] == 6 and 1.5 <= found["audio_seconds"] <= 3  # three of 0.5 to 1 s, two words each
    assert found["processor_seconds"] > 0 and found["file_bytes"] > 0 and found["alone"] is None


def test_two_decoders_are_the_merged_one(kept):
    folder = kept.split_onnx()
    encoder, first, later = (onnxruntime.InferenceSession(folder / name) for name in (ENCODER, DECODER, LATER))
    both = whisper_systems.TwoDecoders(Session(first), Session(later))
    split = OnnxWhisper.of(encoder, both, description(folder), read_vocabulary(folder))
    print("seed:", seed := int(np.random.SeedSequence().entropy) % 2**63)
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((2, 80, 60)).astype(np.float32)
    found, wanted = (one._steps(features) for one in (split, OnnxWhisper(kept.float_onnx(), threads=1)))
    tokens = rng.integers(0, 256, (2, 6))
    for length in (3, 4, 5, 6):
        np.testing.assert_allclose(found(tokens[:, :length]), wanted(tokens[:, :length]), rtol=1e-4, atol=1e-4)


class Session:
    """onnxruntime's session, given only the inputs that it has."""

    def __init__(self, session):
        self._session = session

    def run(self, names, inputs, options=None):
        known = {value.name for value in self._session.get_inputs()}
        return self._session.run(None, {name: value for name, value in inputs.items() if name in known})


def test_whisper_cpps_file_holds_the_weights(kept, tmp_path):
    quants = pytest.importorskip("gguf").quants
    from gguf import GGMLQuantizationType

    from mpq.bench import ggml

    model, _ = load(str(kept.model))
    about, texts = description(kept.float_onnx()), read_vocabulary(kept.float_onnx())
    ggml.write(tmp_path / "x.bin", model, mel := LogMel(**about.mel), texts, "Q8_0")
    data = (tmp_path / "x.bin").read_bytes()
    magic, vocabulary = struct.unpack_from("<2i", data)
    assert magic == 0x67676D6C and vocabulary == model.config.vocab_size
    assert np.frombuffer(data, "<f4", mel.bands.size, 56).reshape(mel.bands.shape) == pytest.approx(mel.bands)
    weight = model.model.decoder.embed_tokens.weight.detach().numpy()
    kind = GGMLQuantizationType.Q8_0
    name = b"decoder.token_embedding.weight"
    stored = quants.quantize(weight, kind).tobytes()
    assert data[data.index(name) + len(name) :].startswith(stored)


@pytest.mark.parametrize(
    ("more", "told"),
    [({"systems": ("nothing",)}, "no system 'nothing'"), ({"utterances": 0}, "at least 1"), ({"silence": -1.0}, "-1")],
)
def test_what_can_not_be_measured_is_refused(kept, speech_folder, more, told):
    with pytest.raises(UserError, match=told):
        bench.run(options(kept, speech_folder, **more))
    with pytest.raises(UserError, match="must be a Whisper's folder"):
        bench.run(Options(folder=str(speech_folder), root=str(speech_folder)))
