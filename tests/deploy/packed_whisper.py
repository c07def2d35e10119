"""A tiny Whisper whose texts are varied, packed at mixed precisions."""

import torch
from tiny_whisper import ARCHITECTURE

from mpq.checkpoint.packed import load_packed, save_packed
from mpq.models.loading import from_scratch
from mpq.quant.sites import attach, find_sites

TIMES = 1_501
RATE = 16_000


def packed_whisper(folder, bits, multilingual=False):
    """Write a model of random weights; its sites take `bits` in turn, and its texts end with its positions.

    A multilingual one has no tokens for times and suppresses none. Returns what a folder is loaded as.
    """
    vocabulary = 262 if multilingual else 262 + TIMES
    model, processor = from_scratch(ARCHITECTURE | {"vocab_size": vocabulary, "decoder_layers": 2}, seed=0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name != "model.encoder.embed_positions.weight":
                weight.add_(torch.randn_like(weight) * 0.5)
    token, about = processor.tokenizer.convert_tokens_to_ids, model.generation_config
    if multilingual:
        about.is_multilingual = True
        about.lang_to_id = {"<|en|>": token("<|en|>")}
        about.task_to_id = {"transcribe": token("<|transcribe|>")}
    else:
        about.suppress_tokens = [token("a"), *range(256, 261)]
        about.begin_suppress_tokens = [token("b"), token("c")]
        about.max_initial_timestamp_index = 50
    for index, quantizer in enumerate(attach(model, find_sites(model, "*"), bits).values()):
        if quantizer.bits is None:
            quantizer.freeze(bits[index % len(bits)])
    save_packed(folder, model, processor)
    return load_packed(folder)


def recordings(rng, *seconds):
    return [0.3 * rng.standard_normal(round(RATE * length)).astype("float32") for length in seconds]
