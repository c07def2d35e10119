"""scripts/quantize.py megabytes=: the size of the file in place of bits."""

import json
import re
import shutil

import jiwer
import pytest
import torch

from mpq.checkpoint.packed import load_model, load_packed
from mpq.checkpoint.size import file_bytes
from mpq.compress.output import summary
from mpq.compress.quantize_now import quantize_now
from mpq.conf import located
from mpq.data.librispeech import recordings
from mpq.errors import UserError
from mpq.evaluate.transcribe import transcribe
from mpq.models.loading import load, speech_model
from mpq.record.result import from_json

FEW = {"trainer.calibration_utterances": 3, "trainer.audio_seconds": 3.0, "trainer.accelerator": "cpu"}

pytestmark = pytest.mark.usefixtures("here")


def test_without_data_the_file_has_the_size_that_its_card_and_summary_name(model_folder, here):
    made = quantize_now(str(model_folder), megabytes=0.0197)
    assert made.folder.name == "smallest_ptq_rtn_size_0p0197mb" and made.method == "round"
    assert 0.995 * 19_700 <= file_bytes(made.folder) == made.size.file_bytes <= 19_700
    assert "(for at most 0.0197 MB: rounded" in summary(made)
    text = (made.folder / "README.md").read_text()
    assert ", made for at most 0.0197 MB." in text and load_packed(made.folder)[0]
    (command,) = re.findall("`python scripts/quantize.py (.*)`", text)
    assert "megabytes=0.0197 method=round data=FOLDER" in command and "bits" not in command


def test_recordings_are_fitted_and_with_transcripts_the_record_names_the_size(model_folder, speech_folder, here):
    quiet = shutil.copytree(speech_folder, here / "quiet", ignore=shutil.ignore_patterns("*.txt"))
    fitted = quantize_now(str(model_folder), None, quiet, here / "fitted", changes=FEW, megabytes=0.02)
    assert fitted.method == "gptq" and file_bytes(fitted.folder) <= 20_000 and fitted.result is None
    made = quantize_now(
        str(model_folder), None, speech_folder / "train", here / "measured", changes=FEW, megabytes=0.02
    )
    assert made.result is not None and made.result.recipe == "ptq_gptq_size"
    (path,) = here.glob("experiments/local/*ptq_gptq_size_0p02mb*/seed0/result.json")
    assert json.loads(path.read_text())["size"]["target_megabytes"] == 0.02
    again = from_json(path.read_text())
    assert again.size.target_megabytes == 0.02 and again.bits.target is None and again.to_json() == path.read_text()
    assert "full precision" not in (made.folder / "README.md").read_text()


def test_norms_and_biases_learn_from_recordings_alone_and_the_file_keeps_its_size(model_folder, speech_folder, here):
    quiet = shutil.copytree(speech_folder, here / "quiet", ignore=shutil.ignore_patterns("*.txt"))
    given = (str(model_folder), None, quiet)
    fitted = quantize_now(*given, here / "fitted", "gptq", FEW, megabytes=0.02)
    made = quantize_now(*given, here / "norms", "norms", FEW | {"trainer.updates": 3}, megabytes=0.02)
    assert made.method == "norms" and "norms and biases trained" in summary(made)
    assert made.size.file_bytes == fitted.size.file_bytes == file_bytes(made.folder)
    before, after = (dict(load_packed(one.folder)[0].named_parameters()) for one in (fitted, made))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed and all(after[name].ndim == 1 for name in changed)


def test_by_default_an_untrained_model_is_made_six_and_a_half_times_smaller(model_folder, here):
    made = quantize_now("tiny_wav2vec2")
    assert made.method == "round" and made.size.target_megabytes == 0.359  # 583,872 parameters x 4 bytes / 6.5
    assert 0.995 * 359_000 <= file_bytes(made.folder) <= 359_000
    least = quantize_now(str(model_folder))  # too small a model for that: most of its file are not codes
    with pytest.raises(UserError, match="must be between ") as refused:
        quantize_now(str(model_folder), megabytes=0.001)
    (smallest,) = re.findall(r"between ([0-9.]+) and", str(refused.value))
    assert least.size.target_megabytes == float(smallest)


def test_a_model_without_transcripts_is_held_against_its_float_model(speech_folder, here):
    good, bad = (quantize_now("tiny_wav2vec2", bits, output=f"{bits}") for bits in (8, 2))
    assert good.agreement is not None and bad.agreement is not None
    assert good.agreement.words == bad.agreement.words  # eSpeak NG would speak otherwise the second time
    assert 0 <= good.agreement.wer < 5 < bad.agreement.wer
    line = (
        f"check   {good.agreement.wer:.1f} % WER against the float model's own texts of 8 made-up English sentences, "
    )
    assert line in summary(good) and good.agreement.sentence() in (good.folder / "README.md").read_text()
    files = sorted(speech_folder.rglob("*.flac"))[:6]
    for file in files:
        shutil.copy(file, here)
    heard = quantize_now("tiny_wav2vec2", 2, here, here / "heard")
    texts = []
    for model in (speech_model(*load(located("mpq/models/tiny_wav2vec2"))), speech_model(*load_model(heard.folder))):
        texts.append(list(transcribe(model, recordings(here).utterances, 60.0)[0].values()))
    assert heard.agreement is not None and heard.agreement.recordings == len(texts[0]) > 1
    assert heard.agreement.wer == pytest.approx(100 * jiwer.wer(*texts))
    assert ("choose a larger bits=, or megabytes=" in summary(heard)) == (heard.agreement.wer >= 25)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"bits": 4.0, "megabytes": 1.0}, "bits=4 and megabytes=1 both set the size of the file: give one of them"),
        ({"megabytes": 0.0}, "megabytes=0 must be a number of megabytes above 0"),
        ({"megabytes": 1.0, "method": "one_stage"}, "takes method=round or method=gptq"),
        ({"megabytes": 1.0, "changes": {"quantizer.activations": "dynamic"}}, "activations=dynamic must be none"),
        ({"megabytes": 30.0}, r"^megabytes=30 must be between 0\.0\d+ and 0\.0\d+, the smallest and the largest"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_leaves_nothing(model_folder, here, given, match):
    with pytest.raises(UserError, match=match):
        quantize_now(str(model_folder), **given)
    assert not [path for path in here.rglob("*") if path.is_file()]
