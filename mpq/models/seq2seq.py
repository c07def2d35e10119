"""Sequence-to-sequence models of transformers: Whisper and what shares its class (Distil-Whisper).

The model predicts the next token of a transcript from audio and the tokens before it. In training these are the label's
own (teacher forcing). A **prompt** of special tokens precedes the text (start, language, task, no timestamps); its
positions are not predicted, whereas the token that ends the text is: without it decoding would not learn to stop.

*Context.* Whisper was trained on audio padded to 30 s, and its encoder costs as much for any recording. Here the
inputs may be cut after the batch's longest recording plus a margin of silence (`Choices.margin_seconds`), for student
and teacher alike; the encoder then uses the first of its positions.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpq.errors import UserError
from mpq.models.bytes_processor import bytes_processor
from mpq.models.fallback import unrepeated
from mpq.models.kinds import SEQ2SEQ
from mpq.models.languages import unknown_language
from mpq.models.reader import Reader
from mpq.models.speech import SpeechModel

_STRIDE = 2  # feature frames per position of Whisper's encoder
ENGLISH, BASIC = "whisper english", "whisper basic"


@dataclass(frozen=True, eq=False)
class Seq2SeqReader(Reader):
    """Reads for Whisper: log-mel features of 30 s, and tokens of a text with the token that ends it.

    longest: largest number of labels. english: whether texts are compared in Whisper's English normal form.
    """

    longest: int
    english: bool

    @property
    def longest_seconds(self) -> float:
        """The 30 s that the model was trained on."""
        return float(self.processor.feature_extractor.chunk_length)

    @property
    def normalizer(self) -> str:
        """Whisper's normaliser for English, or the basic one for other languages."""
        return ENGLISH if self.english else BASIC

    @property
    def spelling(self) -> None:
        """None: such a vocabulary spells every text."""
        return None

    def inputs(self, samples: np.ndarray) -> tuple[Tensor, int]:
        """Return log-mel features `[3000, features]` of 30 s, and the number of frames with audio.

        Longer recordings are cut.
        """
        extractor = self.processor.feature_extractor
        features = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt").input_features[0].T
        return features.contiguous(), min(len(features), -(-len(samples) // extractor.hop_length))

    def labels(self, text: str) -> Tensor:
        """Return the tokens `[tokens]` of `text` after a space, and the token that ends it.

        A text in capitals, such as LibriSpeech's, is turned into lower case first: Whisper writes no capitals.
        """
        tokenizer = self.processor.tokenizer
        written = text.lower() if text.isupper() else text
        tokens = tokenizer(f" {written.strip()}", add_special_tokens=False).input_ids
        return torch.tensor([*tokens, tokenizer.eos_token_id][: self.longest])

    def scored(self, text: str) -> str:
        """Return `text` in Whisper's normal form (Radford et al. 2022, appendix C)."""
        tokenizer = self.processor.tokenizer
        if not self.english:
            return tokenizer.basic_normalize(text).strip()
        if tokenizer.english_spelling_normalizer is None:
            raise UserError("the model has no normalizer.json: add that file of the model that it was made from")
        return tokenizer.normalize(text).strip()


@dataclass(frozen=True, eq=False)
class Seq2SeqModel(SpeechModel):
    """A sequence-to-sequence model: its positions are the tokens of the text and the one that ends it.

    Raises: UserError if the model lacks a generation config or its tokenizer, or is multilingual and `choices.language`
    is not one of its languages.
    """

    KIND: ClassVar[str] = SEQ2SEQ
    OPTIONAL_WEIGHTS: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        largest, known = max(self.prompt), len(self.processor.tokenizer)
        if largest >= known:  # transformers makes an empty tokenizer where the files are missing
            raise UserError(
                f"the tokenizer has {known} tokens, but the model's prompt has token {largest}: add the tokenizer's "
                "files (tokenizer.json, tokenizer_config.json) of the model that it was made from"
            )

    @staticmethod
    def prepare(model: Any) -> nn.Module:
        """Return `model` in eval mode."""
        return model.eval()

    @staticmethod
    def processor_from_scratch(architecture: Mapping[str, Any]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Return a processor over bytes, and the numbers of its special tokens."""
        processor = bytes_processor(architecture.get("num_mel_bins", 80))
        token = processor.tokenizer.convert_tokens_to_ids
        end = processor.tokenizer.eos_token_id
        special = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end}
        special["decoder_start_token_id"] = token("<|startoftranscript|>")
        without_times = {"no_timestamps_token_id": token("<|notimestamps|>"), "is_multilingual": False}
        return processor, special, special | without_times | {"return_timestamps": False}

    @property
    def reader(self) -> Seq2SeqReader:
        """What turns audio and text into inputs and labels."""
        english = not self.takes_language or self._language() == "<|en|>"
        longest = self.model.config.max_target_positions - len(self.prompt)
        return Seq2SeqReader(self.processor, longest, english)

    @property
    def takes_language(self) -> bool:
        """See `SpeechModel.takes_language`."""
        return bool(getattr(self.model.generation_config, "is_multilingual", False))

    @property
    def prompt(self) -> list[int]:
        """The tokens before the text."""
        config = self.model.generation_config
        last = getattr(config, "no_timestamps_token_id", None)
        if config.decoder_start_token_id is None or last is None:
            raise UserError(
                f"the {self.model.config.model_type} model has no generation config for transcription: add the file "
                "generation_config.json of the model that it was made from"
            )
        if not self.takes_language:
            return [config.decoder_start_token_id, last]
        task = config.task_to_id["transcribe"]
        return [config.decoder_start_token_id, config.lang_to_id[self._language()], task, last]

    def _language(self) -> str:
        """Return the token of the language of a multilingual model."""
        from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

        known, chosen = self.model.generation_config.lang_to_id, self.choices.language
        token = f"<|{TO_LANGUAGE_CODE.get(str(chosen).lower(), str(chosen).lower())}|>"
        if token not in known:
            raise unknown_language([name.strip("<|>") for name in known], chosen)
        return token

    @property
    def front(self) -> nn.Module:
        """The encoder."""
        return self.model.get_encoder()

    def freeze_feature_encoder(self) -> None:
        """Exclude the encoder's convolutions from training."""
        for module in self.model.get_encoder().modules():
            if isinstance(module, nn.Conv1d):
                module.requires_grad_(False)

    def positions(self, lengths: Tensor, label_counts: Tensor) -> Tensor:
        """Return the number of labels `[batch]`."""
        return label_counts

    def loss_units(self, positions: Tensor) -> Tensor:
        """Return the number of labels in the batch."""
        return positions.sum()

    def logits(self, inputs: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Return the logits `[batch, tokens, vocabulary]` of each label, given the prompt and the labels before it."""
        prompt = torch.tensor(self.prompt, device=labels.device).expand(len(labels), -1)
        end = self.processor.tokenizer.eos_token_id  # in place of padding, which no real position sees
        before = torch.cat([prompt, labels[:, :-1].masked_fill(labels[:, :-1] < 0, end)], dim=1)
        with self._context(inputs, lengths) as features:
            made = self.model(input_features=features, decoder_input_ids=before, use_cache=False)
        return made.logits[:, prompt.shape[1] - 1 :]

    def loss(self, outputs: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of the labels in nats, a mean over them."""
        return F.cross_entropy(outputs.float().flatten(0, 1), labels.flatten(), ignore_index=-100)

    def without_padding(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return `inputs` as they are: `logits` cuts them."""
        return inputs

    def real_rows(self, rows: tuple[int, ...], positions: Tensor) -> Tensor | None:
        """Return the decoder's rows without padding; silence after a recording is part of the encoder's input."""
        before = len(self.prompt) - 1
        if rows != (len(positions), before + int(positions.max())):
            return None
        return torch.arange(rows[1], device=positions.device) < before + positions[:, None]

    def transcribe(self, inputs: Tensor, lengths: Tensor) -> list[str]:
        """Return the text of each row: the likeliest token at each step, by transformers' own greedy search.

        With `choices.fallback`, one that repeats itself is decoded again, alone (`mpq.models.fallback`).
        """
        texts = [text for text, _ in self._generate(inputs, lengths)]
        if not self.choices.fallback:
            return texts

        def sampled(row: int, temperature: float) -> str:
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                torch.manual_seed(0)
                return self._generate(inputs[row : row + 1], lengths[row : row + 1], temperature)[0][0]

        return [unrepeated(text, str, partial(sampled, row)) for row, text in enumerate(texts)]

    def labels_for_student(self, inputs: Tensor, lengths: Tensor) -> list[str | None]:
        """Return `transcribe`'s texts; None for a loop, which ran out of positions."""
        return [text if ended else None for text, ended in self._generate(inputs, lengths)]

    def _generate(self, inputs: Tensor, lengths: Tensor, temperature: float = 0.0) -> list[tuple[str, bool]]:
        """Return the text of each row, and whether the model ended it before running out of positions.

        Above a `temperature` of 0 the tokens are drawn at random.
        """
        from transformers.generation.utils import GenerationMixin

        prompt = torch.tensor(self.prompt, device=inputs.device).expand(len(inputs), -1)
        # No limit by the audio's length: a loop then had fewer insertions than transformers' own decoding gives it.
        longest = self.model.config.max_target_positions
        search = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        with torch.no_grad(), self._context(inputs, lengths) as features:
            made: Any = GenerationMixin.generate(  # pyright: ignore[reportAttributeAccessIssue]  # Whisper's own needs 30 s
                self.model,
                features,
                attention_mask=torch.ones_like(features[:, 0], dtype=torch.long),  # unused; else it is missed
                decoder_input_ids=prompt,
                num_beams=1,
                max_length=longest,
                **search,
            )
        tokenizer, tokens = self.processor.tokenizer, made[:, prompt.shape[1] :].cpu()
        ended = (tokens == tokenizer.eos_token_id).any(dim=1).tolist()
        texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return list(zip(texts, ended, strict=True))

    @contextmanager
    def _context(self, inputs: Tensor, lengths: Tensor) -> Iterator[Tensor]:
        """Yield features `[batch, features, frames]`, cut after the margin; the block's encoder takes so many.

        transformers' encoder insists on all of its positions (`max_source_positions`), so they are cut meanwhile.
        """
        encoder, margin = self.model.get_encoder(), self.choices.margin_seconds
        whole, frames = encoder.embed_positions, inputs.shape[1]
        if margin is not None:
            extractor = self.processor.feature_extractor
            beyond = round(margin * extractor.sampling_rate / extractor.hop_length)
            frames = min(frames, int(lengths.max()) + beyond + (int(lengths.max()) + beyond) % _STRIDE)
        config, count = encoder.config, frames // _STRIDE
        full = config.max_source_positions
        try:
            config.max_source_positions = count
            encoder.embed_positions = nn.Embedding.from_pretrained(whole.weight[:count])
            yield inputs[:, :frames].transpose(1, 2)
        finally:
            config.max_source_positions, encoder.embed_positions = full, whole
