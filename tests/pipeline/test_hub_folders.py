"""The paper's rows on folders as the Hub has them: from the first command to the table, and the same bytes again."""

import csv
import io
import json
import pickle
from pathlib import Path

import pytest
import torch
from hub_folders import NAMES, hub_folder
from tiny_run import run_here

from mpq.conf import REPOSITORY
from mpq.errors import UserError
from mpq.models import loading

ROWS = {
    "wav2vec2-base-960h": "wav2vec2_base_3p5bit",  # lacks a tensor, which the 100h file of the paper's row does not
    "hubert-large-ls960-ft": "hubert_large_3p5bit",
}
MASK = "masked_spec_embed"


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_with_the_weights_of_its_file(name, tmp_path):
    tensors = hub_folder(tmp_path / name, name)
    model, processor = loading.load(str(tmp_path / name))
    found = model.state_dict()
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        lacks_mask = key.endswith(MASK) and name == "wav2vec2-base-960h"
        assert torch.equal(found[key], torch.zeros_like(tensor) if lacks_mask else tensor), key
    assert processor.feature_extractor.return_attention_mask == (model.config.feat_extract_norm == "layer")
    assert processor.tokenizer("HI IT'S").input_ids == [11, 9, 4, 9, 6, 27, 12]
    assert processor.tokenizer.decode([11, 11, 0, 9, 4, 4, 6]) == "HI T"


@pytest.mark.parametrize("name", ROWS)
def test_the_papers_row_runs_from_the_command_to_the_table_twice_with_the_same_bytes(
    name, speech_folder, tmp_path, monkeypatch, capsys
):
    hub_folder(tmp_path / name, name)
    made = []
    for root in (tmp_path / "first", tmp_path / "second"):
        assert run_here(monkeypatch, *words(tmp_path / name, ROWS[name], speech_folder, root)) == 0
        (model,) = root.glob(f"{ROWS[name]}*/seed0/model")
        files = ("model.safetensors", "config.json")
        hypotheses = (model.parent / "hypotheses.jsonl").read_bytes()
        made.append([*((model / file).read_bytes() for file in files), hypotheses])
        record = json.loads((model.parent / "result.json").read_text())
        assert record["significance"]["clean"]["baseline"]["exp"].endswith("fp32_mini_speech")
    assert made[0] == made[1]
    capsys.readouterr()
    script = REPOSITORY / "scripts" / "tables.py"
    assert run_here(monkeypatch, "table=records", "format=csv", f"root={tmp_path / 'first'}", script=script) == 0
    cells = {cell for row in csv.reader(io.StringIO(capsys.readouterr().out)) for cell in row}
    assert {f"{ROWS[name]}_mini_speech", ROWS[name].replace("3p5bit", "fp32_mini_speech")} <= cells


def words(model: Path, row: str, speech: Path, root: Path) -> list[str]:
    few = {"updates": 2, "interval": 1, "audio_seconds": 3, "accelerator": "cpu"}
    return [
        f"+exp={row}",
        f"model.path={model}",
        f"data.root={speech}",
        "data.train=[train]",
        "data.test=[clean]",
        "data.workers=0",
        *(f"trainer.{key}={value}" for key, value in few.items()),
        "logger.mode=off",
        f"root={root}",
        f"cache={root}/cache",
    ]


class Touch:
    """What a hostile file runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path):
    hub_folder(tmp_path / "model", "wav2vec2-base-100h")
    torch.save({"lm_head.bias": Touch(tmp_path / "was here")}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(UserError) as refused:
        loading.load(str(tmp_path / "model"))
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "was here").exists()
    pickle.loads(pickle.dumps(Touch(tmp_path / "was here")))
    assert (tmp_path / "was here").exists()  # so the file would have done it
