"""A packed Whisper: the tied embedding, the files around the weights, and transformers' own pipeline."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_whisper import GREEDY, tiny_whisper

import mpq
from mpq.checkpoint.coding import packed_form
from mpq.checkpoint.hf import MpqConfig
from mpq.checkpoint.packed import load_model, load_packed, read_folder, save_model, save_packed
from mpq.checkpoint.size import bits_and_size
from mpq.checkpoint.tensors import count_parameters
from mpq.errors import UserError
from mpq.models.loading import speech_model
from mpq.quant.sites import attach, find_sites

pytestmark = pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
EMBEDDING, OUTPUT = "model.decoder.embed_tokens", "proj_out"
SEARCHED = "*coder.layers.*"


@pytest.fixture(scope="module")
def quantized():
    """A tiny Whisper that computes with 4-bit layers and an 8-bit embedding, and its processor."""
    model, processor = tiny_whisper()
    attach(model, find_sites(model, SEARCHED), (4,))
    return model, processor


@pytest.fixture(scope="module")
def packed_once(quantized, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper") / "packed"
    save_packed(folder, *quantized)
    return folder


@pytest.fixture
def packed(packed_once, tmp_path):
    return shutil.copytree(packed_once, tmp_path / "packed")


def texts(model, processor, audio):
    speech = speech_model(model, processor)
    made = [speech.reader.inputs(samples) for samples in audio]
    return [speech.transcribe(inputs[None], torch.tensor([length]))[0] for inputs, length in made]


def test_pipeline_writes_what_the_fake_quantized_model_writes(quantized, packed):
    rng = np.random.default_rng()
    audio = [rng.normal(size=size).astype(np.float32) for size in (4_000, 16_000)]
    want = texts(*quantized, audio)
    assert all(len(text) > 5 for text in want)
    assert texts(*load_packed(packed), audio) == want
    for keep_packed in (False, True):
        recognize = transformers.pipeline(
            "automatic-speech-recognition",
            model=str(packed),
            model_kwargs={"quantization_config": MpqConfig(keep_packed=keep_packed)},
            generate_kwargs=GREEDY,
        )
        assert [recognize(samples)["text"] for samples in audio] == want
    long = np.tile(audio[1], 35)
    assert recognize(long, chunk_length_s=30)["text"]


def test_the_embedding_is_stored_once_and_counted_once(quantized, packed):
    model, _ = quantized
    stored, config = load_file(packed / "model.safetensors"), json.loads((packed / "config.json").read_text())
    assert config["quantization_config"]["tied"] == {f"{OUTPUT}.weight": f"{EMBEDDING}.weight"}
    assert stored[f"{EMBEDDING}.weight_packed"].numel() == model.config.vocab_size * model.config.d_model
    assert not [name for name in stored if name.startswith(OUTPUT)]
    parameters = count_parameters(tiny_whisper()[0])
    assert parameters == sum(parameter.numel() for parameter in tiny_whisper()[0].parameters())
    bits, size = bits_and_size(model, SEARCHED, 4.0, parameters, packed)
    sites = find_sites(model, SEARCHED)
    searched, others = (sum(s.numel for s in sites if s.searched == wanted) for wanted in (True, False))
    assert bits.average == 4.0
    assert size.ideal_bits == 4 * searched + 8 * others + 32 * (parameters - searched - others)


def test_both_uses_of_the_embedding_share_what_is_in_memory(packed):
    plain, _ = load_packed(packed)
    assert plain.get_submodule(OUTPUT).weight is plain.get_submodule(EMBEDDING).weight
    auto = transformers.AutoModelForSpeechSeq2Seq
    kept = auto.from_pretrained(packed, quantization_config=MpqConfig(keep_packed=True))
    table, output = kept.get_submodule(EMBEDDING), kept.get_submodule(OUTPUT)
    assert table.weight_packed is output.weight_packed
    _, sites, _, stored = read_folder(packed)
    assert kept.get_memory_footprint() == sum(tensor.nbytes for tensor in packed_form(sites, stored).values())
    ids = torch.randint(0, kept.config.vocab_size, (3, 5))
    assert torch.equal(table(ids), plain.get_submodule(EMBEDDING)(ids))
    with pytest.raises(IndexError):
        table(torch.tensor([kept.config.vocab_size]))


def test_a_folder_has_every_file_that_transcribing_takes(quantized, packed, tmp_path):
    model, processor = quantized
    processor.tokenizer.english_spelling_normalizer = {"colour": "color"}
    save_packed(tmp_path / "again", model, processor)
    plain, _ = tiny_whisper()
    save_model(tmp_path / "float", plain, processor)
    for folder in (tmp_path / "again", tmp_path / "float"):
        loaded, found = load_model(folder)
        assert loaded.generation_config.to_dict() == model.generation_config.to_dict()
        assert found.tokenizer.normalize("The COLOUR, twenty-one") == "the color 21"
        assert found.feature_extractor.to_dict() == processor.feature_extractor.to_dict()
        assert found.tokenizer.get_vocab() == processor.tokenizer.get_vocab()


def test_a_generation_config_that_is_missing_or_damaged_is_refused(packed):
    path = packed / "generation_config.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"generation_config\.json is damaged"):
        load_packed(packed)
    path.unlink()
    with pytest.raises(UserError, match=r"generation_config\.json is missing"):
        load_packed(packed)


def test_another_kind_of_class_is_refused(packed):
    with pytest.raises(UserError, match=r"not WhisperModel: use AutoModelForSpeechSeq2Seq"):
        transformers.WhisperModel.from_pretrained(packed)


def test_the_api_quantizes_a_whisper_as_any_module(tmp_path):
    model, processor = tiny_whisper()
    mpq.quantize(model, 3, searched=SEARCHED)
    mpq.save_packed(tmp_path / "packed", model, processor)
    sites = json.loads((tmp_path / "packed" / "config.json").read_text())["quantization_config"]["sites"]
    assert {site["bits"] for name, site in sites.items() if ".layers." in name} == {3}
    assert sites[f"{EMBEDDING}.weight"]["bits"] == 8
