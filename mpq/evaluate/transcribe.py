"""Greedy CTC transcription of an evaluation set."""

from collections.abc import Sequence
from typing import Any

import torch
from rich.progress import track
from torch import nn

from mpq.data.batching import by_length
from mpq.data.dataset import SpeechDataset, loader
from mpq.data.librispeech import Utterance
from mpq.errors import UserError
from mpq.models import ctc
from mpq.models.processor import scored


@torch.inference_mode()
def transcribe(
    model: nn.Module,
    processor: Any,
    utterances: Sequence[Utterance],
    audio_seconds: float,
    on_bad_audio: str = "stop",
    workers: int = 0,
    title: str = "Transcribing",
) -> tuple[dict[str, str], list[str]]:
    """Transcribe `utterances` by taking the likeliest character of each frame, without a language model.

    Batches are the same for every system, longest first, of at most `audio_seconds` padded seconds. Models whose
    feature extractor asks for no attention mask (those with group norm, as wav2vec2-base) were trained on zero-padded
    batches and see the padding: there a hypothesis can change with the length of its neighbours and so with
    `audio_seconds`. Comparisons are between systems that heard the same batches.

    Returns the hypotheses by utterance id, spelled as references are (`scored`), in the order of `utterances`, and a
    message for each file left out. Special tokens that the model writes stay in the text, as `processor.batch_decode`
    leaves them.

    Raises: UserError at a bad file under `on_bad_audio="stop"`, or where no file is usable.
    """
    device = next(model.parameters()).device
    model.eval()
    attention_mask = bool(processor.feature_extractor.return_attention_mask)
    batches = by_length([utterance.seconds for utterance in utterances], audio_seconds)
    dataset = SpeechDataset(utterances, processor, on_bad_audio)
    vocabulary = list(processor.tokenizer.get_vocab())
    found: dict[str, str] = {}
    skipped: list[str] = []
    for batch in track(loader(dataset, batches, workers), title, total=len(batches)):
        skipped += batch.skipped
        if not batch.ids:
            continue
        batch = batch.to(device)
        best = ctc.logits(model, batch.inputs, batch.lengths, attention_mask).argmax(-1).cpu()
        counts = ctc.frames(model, batch.lengths).tolist()
        for name, characters, count in zip(batch.ids, best, counts, strict=True):
            found[name] = scored(vocabulary, processor.tokenizer.decode(characters[:count]))
    if not found:
        raise UserError(f"none of the {len(skipped)} files can be transcribed; the first: {skipped[0]}")
    return {utterance.id: found[utterance.id] for utterance in utterances if utterance.id in found}, skipped
