"""A Whisper as a folder of ONNX files, with the names that Hugging Face Optimum gives them, which other programs load.

Beside the two graphs lie what these programs read: config.json, generation_config.json and the processor's files, also
in their older forms (preprocessor_config.json, vocab.json, added_tokens.json), which onnx-asr, Optimum's transformers 4
and mpq's own runtime need. config.json has no block of mpq's, since the weights are in the ONNX files.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from mpq.deploy import attention, cached_decoder, graph, graph_seq2seq
from mpq.deploy.graph import Layout, SiteWeight
from mpq.deploy.runtime_seq2seq import DECODER, ENCODER, WhisperDescription
from mpq.deploy.vocabulary import VOCABULARY
from mpq.errors import UserError
from mpq.models.processor import save_processor
from mpq.models.seq2seq import Seq2SeqModel

TRIED = ("whisper",)
_MEL = {
    "rate": "sampling_rate",
    "bins": "feature_size",
    "window": "n_fft",
    "hop": "hop_length",
    "seconds": "chunk_length",
}


def describe(model: Any, processor: Any, layout: str, source: str) -> WhisperDescription:
    """Return the description of `model` with `processor`; `source` is the packed folder's checksum.

    Raises: UserError if the export of this model type is untested, or the model lacks what decoding needs.
    """
    config, generation = model.config, model.generation_config
    if config.model_type not in TRIED:
        raise UserError(f"export is tested only for Whisper; this model is {config.model_type}: use its folder")
    multilingual = getattr(generation, "is_multilingual", False)
    if not multilingual:
        _ = Seq2SeqModel(model, processor).prompt  # refuses a model without a generation config or a tokenizer
    return WhisperDescription(
        layout=layout,
        mel={name: int(getattr(processor.feature_extractor, theirs)) for name, theirs in _MEL.items()},
        layers=config.decoder_layers,
        heads=config.decoder_attention_heads,
        width=config.d_model // config.decoder_attention_heads,
        vocabulary=config.vocab_size,
        start=generation.decoder_start_token_id,
        end=processor.tokenizer.eos_token_id,
        no_timestamps=generation.no_timestamps_token_id,
        languages={name.strip("<|>"): token for name, token in generation.lang_to_id.items()} if multilingual else {},
        transcribe=generation.task_to_id["transcribe"] if multilingual else None,
        suppressed=list(generation.suppress_tokens or []),
        suppressed_first=list(generation.begin_suppress_tokens or []),
        latest_start=getattr(generation, "max_initial_timestamp_index", None),
        longest=config.max_target_positions,
        source=source,
    )


def trace(model: Any, processor: Any, opset: int) -> dict[str, ir.Model]:
    """Return the graphs in float32, by file name."""
    return {ENCODER: graph_seq2seq.encoder_graph(model, opset), DECODER: graph_seq2seq.decoder_graph(model, opset)}


def insert(
    programs: Mapping[str, ir.Model],
    model: Any,
    weights: Mapping[str, SiteWeight],
    tied: Mapping[str, str],
    layout: Layout,
) -> None:
    """Put the packed weights into the graphs of `trace`, in place, and complete them."""
    config, interfaces = model.config, graph_seq2seq.interfaces(model.config)
    attention.fuse(programs[ENCODER].graph, config.encoder_attention_heads)
    for name, program in programs.items():
        graph.rewrite(program.graph, weights, tied, layout.for_decoder() if name == DECODER else layout)
        if name == DECODER:
            heads = config.decoder_attention_heads
            cached_decoder.merge(program, heads, config.d_model // heads)
        graph.finish(program, *interfaces[name])


def write_beside(folder: Path, model: Any, processor: Any) -> None:
    """Write the other files into `folder`."""
    save_processor(folder, processor)
    processor.feature_extractor.save_pretrained(folder)
    about = folder / "tokenizer_config.json"
    settings = json.loads(about.read_text(encoding="utf-8"))
    if isinstance(settings.get("extra_special_tokens"), list):  # only transformers 5 knows it; both know the older name
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
        _write_json(about, settings)
    config = json.loads(model.config.to_json_string(use_diff=False))
    for name in ("quantization_config", "_name_or_path"):
        config.pop(name, None)
    _write_json(folder / "config.json", config | {"architectures": [type(model).__name__]})
    model.generation_config.save_pretrained(folder)
    for name, tokens in zip(VOCABULARY, _vocabulary(model, processor.tokenizer), strict=True):
        _write_json(folder / name, tokens)


def _vocabulary(model: Any, tokenizer: Any) -> tuple[dict[str, int], dict[str, int]]:
    """The tokens that are text, and the special ones with those of times, which the tokenizer may lack."""
    special = {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
    text = {token: number for token, number in tokenizer.get_vocab().items() if token not in special}
    first = model.generation_config.no_timestamps_token_id + 1
    times = {f"<|{0.02 * (number - first):.2f}|>": number for number in range(first, model.config.vocab_size)}
    return tuple(dict(sorted(tokens.items(), key=lambda one: one[1])) for tokens in (text, times | special))  # type: ignore[return-value]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
