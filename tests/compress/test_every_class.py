"""Every CTC class of transformers through the commands, and README's table of them, which this file makes."""

import re
import shutil

import numpy as np
import pytest
from family_folders import family_folder
from tiny_families import FAMILIES
from tiny_speech import write_speech
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

from mpq.checkpoint.packed import load_packed
from mpq.compress.quantize_now import quantize_now
from mpq.conf import REPOSITORY
from mpq.data.audio import Recording
from mpq.deploy import export_ctc, onnx_export
from mpq.deploy.transcribe import open_recognizer
from mpq.errors import UserError
from mpq.models import loading
from mpq.quant.sites import find_sites

FIRST = {model_type: family for family, (model_type, _) in reversed(FAMILIES.items())}  # of each type
FEW = {
    "trainer.updates": 2,
    "trainer.interval": 2,
    "trainer.audio_seconds": 3.0,
    "trainer.calibration_utterances": 2,
    "trainer.accelerator": "cpu",
}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A folder with transcripts, and one without."""
    root = tmp_path_factory.mktemp("speech")
    speech = write_speech(root / "Mini-Speech", {"train": 3, "clean": 2}, np.random.default_rng())
    return speech, shutil.copytree(speech, root / "recordings", ignore=shutil.ignore_patterns("*.txt"))


@pytest.mark.parametrize("model_type", MODEL_FOR_CTC_MAPPING_NAMES)
def test_it_is_compressed_without_data_with_recordings_and_with_transcripts(
    model_type, recordings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    speech, audio = recordings
    folder = str(family_folder(tmp_path / "model", FIRST[model_type]))
    rounded = quantize_now(folder, 3.5, output=tmp_path / "rounded", changes=FEW)
    fitted = quantize_now(folder, 3.5, audio, tmp_path / "fitted", changes=FEW)
    trained = quantize_now(folder, 3.5, speech, tmp_path / "trained", changes=FEW)
    assert (rounded.method, fitted.method, trained.method) == ("round", "gptq", "one_stage")
    assert trained.result is not None and trained.result.wer["clean"].utterances == 2
    assert trained.result.significance is not None  # so it was compared with the float model
    before, after = (load_packed(made.folder)[0].state_dict() for made in (rounded, fitted))
    fixed_by_audio = {name for name, tensor in before.items() if not tensor.equal(after[name])}
    model, _ = loading.load(folder)
    searched = {site.name for site in find_sites(model, "*encoder.layer*") if site.searched}
    pointwise = {name for name in searched if model.get_parameter(name).ndim == 3}
    assert fixed_by_audio & searched and pointwise <= fixed_by_audio
    assert bool(pointwise) == (model_type in POINTWISE)
    assert (model.main_input_name == "input_features") == (model_type in FEATURES)
    recognizer = open_recognizer(str(trained.folder), "cpu")
    assert isinstance(recognizer.transcribe(Recording(16_000, [np.ones(16_000, dtype=np.float32)])).text, str)
    if model_type not in export_ctc.TRIED:
        with pytest.raises(UserError, match=f"this model is {model_type}"):
            onnx_export.export(rounded.folder, tmp_path / "model.onnx")


def table() -> str:
    """README's table: a row for every class, in the order of the alphabet."""
    rows = ["| class | input | precisions are searched for | `export.py` |", "|---|---|---|---|"]
    for model_type, name in sorted(MODEL_FOR_CTC_MAPPING_NAMES.items(), key=lambda item: item[1].lower()):
        heard = "features" if model_type in FEATURES else "audio"
        searched = "linear layers, pointwise convolutions" if model_type in POINTWISE else "linear layers"
        rows.append(f"| `{name}` | {heard} | {searched} | {'yes' if model_type in export_ctc.TRIED else 'no'} |")
    return "\n".join(rows)


FEATURES = {"granite_speech5_ctc", "lasr_ctc", "parakeet_ctc", "wav2vec2-bert"}
POINTWISE = {"lasr_ctc", "parakeet_ctc", "wav2vec2-bert", "wav2vec2-conformer"}


def test_readme_has_the_table():
    found = re.search(r"^\| class .*?(?=\n\n)", (REPOSITORY / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None and found.group() == table()
