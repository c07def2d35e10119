"""Transcription of an evaluation set."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch

from mpq.data.batching import by_length
from mpq.data.dataset import SpeechDataset, loader
from mpq.data.librispeech import Utterance
from mpq.errors import UserError
from mpq.models.speech import SpeechModel
from mpq.progress import track


@torch.inference_mode()
def transcribe(
    speech: SpeechModel,
    utterances: Sequence[Utterance],
    audio_seconds: float,
    on_bad_audio: str = "stop",
    workers: int = 0,
    title: str = "Transcribing",
    known: Mapping[str, str] = MappingProxyType({}),
    keep: Callable[[dict[str, str]], None] | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Transcribe `utterances` greedily, without a language model (`SpeechModel.transcribe`).

    Batches are the same for every system, longest first, of at most `audio_seconds` padded seconds. Models whose
    feature extractor provides no attention mask (those with group norm, such as wav2vec2-base) were trained on
    zero-padded batches and see the padding: their hypotheses can change with the other utterances' lengths, and so with
    `audio_seconds`. Only systems run on the same batches are compared.

    `known`: hypotheses of an earlier, killed process; a batch whose utterances it has is not decoded again. `keep`
    takes the hypotheses of each batch.

    Returns the hypotheses by utterance id, in the form of references (`Reader.scored`) and the order of `utterances`,
    and a message for each file left out. A CTC model's special tokens stay in the text, as in `processor.batch_decode`.

    Raises: UserError at a bad file under `on_bad_audio="stop"`, or if no file is usable.
    """
    device = speech.device
    speech.model.eval()
    batches = by_length([utterance.seconds for utterance in utterances], audio_seconds)
    dataset = SpeechDataset(utterances, speech.reader, on_bad_audio)
    found = dict(known)
    batches = [batch for batch in batches if any(utterances[number].id not in found for number in batch)]
    skipped: list[str] = []
    for batch in track(loader(dataset, batches, workers), title, "batches", total=len(batches)):
        skipped += batch.skipped
        if not batch.ids:
            continue
        batch = batch.to(device)
        texts = [speech.reader.scored(text) for text in speech.transcribe(batch.inputs, batch.lengths)]
        made = dict(zip(batch.ids, texts, strict=True))
        found |= made
        if keep is not None:
            keep(made)
    if not found:
        raise UserError(f"none of the {len(skipped)} files can be transcribed; the first: {skipped[0]}")
    return {utterance.id: found[utterance.id] for utterance in utterances if utterance.id in found}, skipped
