"""Runs an exported Whisper: audio in, text or segments out, with onnxruntime and numpy alone.

A folder holds the encoder, the merged decoder (`cached_decoder`), both plain or compressed, and, for the text, the
tokens in vocab.json and added_tokens.json. The metadata of both ONNX files has an entry `mpq` with the fields of
`WhisperDescription`.

Decoding is greedy, as in `mpq.evaluate`: the likeliest token at each step among those that are not suppressed. On
request a text that repeats itself is decoded again (`mpq.models.fallback`).

*Context.* Whisper was trained on 30 s, silence after a shorter recording included, and the encoder's time grows with
its input. So the input ends after `SILENCE` seconds of silence; with less, some short recordings become loops
(experiments/LOG.md).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mpq.deploy.compressed import found
from mpq.deploy.log_mel import Inputs, LogMel
from mpq.deploy.runtime import VERSION, as_samples, give_back, open_file
from mpq.deploy.timestamps import Segment, allow, spans
from mpq.deploy.vocabulary import VOCABULARY, read_vocabulary
from mpq.errors import ONE_LANGUAGE, UserError, unused
from mpq.models.fallback import unrepeated

FILES = ENCODER, DECODER = "encoder_model.onnx", "decoder_model_merged.onnx"
FEATURES, STATE = "input_features", "last_hidden_state"
TOKENS, HIDDEN, BRANCH, LOGITS = "input_ids", "encoder_hidden_states", "use_cache_branch", "logits"
SILENCE = 10.0  # seconds


def is_whisper(path: Path) -> bool:
    """Return whether `path` is a folder with one of the files of an exported Whisper."""
    return any(found(path / file).is_file() for file in FILES)


def cache_names(layers: int) -> list[str]:
    """Return the names of the decoder's inputs that hold the past, in their order."""
    kinds = [f"{of}.{part}" for of in ("decoder", "encoder") for part in ("key", "value")]
    return [f"past_key_values.{layer}.{kind}" for layer in range(layers) for kind in kinds]


@dataclass(frozen=True)
class WhisperDescription:
    """layout: speed or memory. mel: the arguments of `LogMel`. layers, heads, width: of the decoder's cache.

    start, end, no_timestamps: tokens that begin the prompt, end the text, and ask for no times; `no_timestamps + 1` is
    time 0, if the vocabulary is that large. languages: the token of each language of a multilingual model; transcribe:
    the token of its task. suppressed: tokens that are never chosen; suppressed_first: not as the first one either.
    latest_start: the last time, in tokens, at which the first segment may begin. longest: number of positions, the
    prompt included. source: SHA-256 of the packed folder's tensors.
    """

    layout: str
    mel: Mapping[str, int]
    layers: int
    heads: int
    width: int
    vocabulary: int
    start: int
    end: int
    no_timestamps: int
    languages: Mapping[str, int]
    transcribe: int | None
    suppressed: Sequence[int]
    suppressed_first: Sequence[int]
    latest_start: int | None
    longest: int
    source: str
    version: int = VERSION
    KIND: ClassVar[str] = "whisper"

    @property
    def has_times(self) -> bool:
        """Whether the model can write times."""
        return self.vocabulary > self.no_timestamps + 1


class OnnxWhisper:
    """A Whisper in a folder of ONNX files that `mpq.deploy.onnx_export` wrote."""

    def __init__(
        self,
        folder: Path | str,
        language: str | None = None,
        threads: int | None = None,
        silence: float = SILENCE,
        fallback: bool = False,
    ) -> None:
        """Load the files of `folder`; they compute with `threads` threads (None: as many as there are cores).

        `language`: spoken in the recordings, for a multilingual model, by its code ("en"). `silence`: seconds of it
        that the encoder gets after the longest recording of a batch, up to the 30 s that the model takes. `fallback`:
        whether a text that repeats itself is decoded again.

        Raises:
            UserError: onnxruntime is not installed; a file is missing, damaged or not written by mpq; the two ONNX
                files do not belong together; the language is not one of the model's, or `silence` is negative.
        """
        folder = Path(folder)
        if missing := [name for name in (*FILES, *VOCABULARY) if not found(folder / name).is_file()]:
            raise UserError(f"{folder} lacks {', '.join(missing)}: export the model again with scripts/export.py")
        encoder, other = open_file(found(folder / ENCODER), WhisperDescription, threads)
        decoder, about = open_file(found(folder / DECODER), WhisperDescription, threads)
        if other != about:
            raise UserError(f"{ENCODER} and {DECODER} in {folder} are of two exports: export the model again")
        _check_cache(folder / DECODER, decoder, about)
        self._set(encoder, decoder, about, read_vocabulary(folder), language, silence)
        self._fallback = fallback

    @classmethod
    def of(
        cls, encoder: Any, decoder: Any, about: WhisperDescription, texts: Mapping[int, bytes], silence: float = SILENCE
    ) -> "OnnxWhisper":
        """Return a recogniser that runs other sessions, with onnxruntime's method `run`, as the benches do.

        `texts`: see `read_vocabulary`.
        """
        made = cls.__new__(cls)
        made._set(encoder, decoder, about, texts, None, silence)
        return made

    def _set(
        self,
        encoder: Any,
        decoder: Any,
        about: WhisperDescription,
        texts: Mapping[int, bytes],
        language: str | None,
        silence: float,
    ) -> None:
        if not silence >= 0:
            raise UserError(f"silence={silence:g} must be at least 0 seconds")
        self._encoder, self._decoder, self.description, self._texts = encoder, decoder, about, texts
        self._inputs = Inputs(LogMel(**about.mel), silence)
        self._prompt = _prompt(about, language)
        self.english = about.transcribe is None or language == "en"
        self._give_back = give_back()
        self._fallback = False

    @property
    def sampling_rate(self) -> int:
        """The sampling rate of the audio, in Hz."""
        return self._inputs.mel.rate

    @property
    def longest_seconds(self) -> float:
        """What the model takes at once; the rest of a longer recording is not heard."""
        return float(self._inputs.mel.seconds)

    def transcribe(self, waveforms: Sequence[NDArray[np.float32]]) -> list[str]:
        """Return the text of each waveform `[samples]` at `sampling_rate`; they run as one batch.

        In layout "speed" a batch shares the 8-bit scales of its inputs: pass waveforms one at a time if a text must not
        depend on the others.

        Raises: UserError if a waveform is not one-dimensional, or the model computes NaN.
        """
        return [self._text(tokens) for tokens in self.tokens(waveforms)]

    def segments(self, waveforms: Sequence[NDArray[np.float32]]) -> list[list[Segment]]:
        """Return the segments of each waveform, by the times that the model writes; see `transcribe`.

        A model that writes none gives one segment per waveform.
        """
        lengths = [len(waveform) / self.sampling_rate for waveform in waveforms]
        if not self.description.has_times:
            return [
                [Segment(text, 0.0, round(s, 2))] for text, s in zip(self.transcribe(waveforms), lengths, strict=True)
            ]
        first = self.description.no_timestamps + 1
        found = [spans(row, first, s) for row, s in zip(self.tokens(waveforms, times=True), lengths, strict=True)]
        return [[Segment(self._text(text), start, end) for text, start, end in row] for row in found]

    def tokens(self, waveforms: Sequence[NDArray[np.float32]], times: bool = False) -> list[list[int]]:
        """Return the tokens of each waveform, without the prompt and the token that ends the text.

        `times`: let the model write times.
        """
        made = self._decoded(waveforms, times) if waveforms else []
        if not self._fallback:
            return made

        def sampled(waveform: NDArray[np.float32], temperature: float) -> list[int]:
            return self._decoded([waveform], times, temperature)[0]

        return [unrepeated(row, self._text, partial(sampled, w)) for row, w in zip(made, waveforms, strict=True)]

    def _decoded(
        self, waveforms: Sequence[NDArray[np.float32]], times: bool, temperature: float = 0.0
    ) -> list[list[int]]:
        """Return `tokens` by greedy search, or drawn at random at a `temperature` above 0, always alike."""
        draws = np.random.default_rng(0)
        about, prompt = self.description, self._prompt if not times else self._prompt[:-1]
        step = self._steps(self._inputs([as_samples(waveform) for waveform in waveforms]))
        tokens = np.tile(np.array(prompt, dtype=np.int64), (len(waveforms), 1))
        while tokens.shape[1] < about.longest and not (tokens[:, len(prompt) :] == about.end).any(1).all():
            scores = step(tokens)
            for row, before in zip(scores, tokens[:, len(prompt) :].tolist(), strict=True):
                self._suppress(row, before, times)
            if temperature:  # the largest sum with Gumbel noise is a draw from the softmax
                scores = scores / temperature + draws.gumbel(size=scores.shape)
            ended = (tokens[:, len(prompt) :] == about.end).any(1)
            tokens = np.column_stack([tokens, np.where(ended, about.end, scores.argmax(-1))])
        written = tokens[:, len(prompt) :].tolist()
        return [row[: row.index(about.end)] if about.end in row else row for row in written]

    def _steps(self, features: NDArray[np.float32]) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
        """Return what gives the scores `[batch, vocabulary]` after tokens `[batch, n]`, more by one at each call."""
        about, names = self.description, cache_names(self.description.layers)
        (hidden,) = self._encoder.run([STATE], {FEATURES: features}, self._give_back)
        past = dict.fromkeys(names, np.zeros((len(features), about.heads, 0, about.width), dtype=np.float32))
        started = False

        def step(tokens: NDArray[np.int64]) -> NDArray[np.float32]:
            nonlocal started
            inputs = {
                TOKENS: tokens[:, -1:] if started else tokens,
                HIDDEN: hidden,
                BRANCH: np.array([started]),
                **past,
            }
            logits, *present = self._decoder.run(None, inputs)
            for name, value in zip(names, present, strict=True):
                if not (started and ".encoder." in name):
                    past[name] = value
            started = True
            if np.isnan(scores := logits[:, -1]).any():
                raise UserError("the model's outputs are NaN: its weights are damaged, so export the model again")
            return scores

        return step

    def _suppress(self, scores: NDArray[np.float32], before: Sequence[int], times: bool) -> None:
        about = self.description
        scores[list(about.suppressed)] = -np.inf
        if not before:
            scores[list(about.suppressed_first)] = -np.inf
        if times:
            allow(scores, before, about.no_timestamps + 1, about.end, about.latest_start)

    def _text(self, tokens: Sequence[int]) -> str:
        return b"".join(self._texts.get(token, b"") for token in tokens).decode("utf-8", errors="replace")


def _check_cache(path: Path, decoder: Any, about: WhisperDescription) -> None:
    """Raises UserError if the decoder's inputs and outputs for the past are not those of its description."""
    shapes = {
        value.name: value.shape[1::2] for value in decoder.get_inputs() if value.name.startswith("past_key_values")
    }
    wanted = {name: [about.heads, about.width] for name in cache_names(about.layers)}
    outputs = [value.name for value in decoder.get_outputs()][1:]
    if shapes != wanted or outputs != [name.replace("past_key_values", "present") for name in wanted]:
        raise UserError(
            f"the cache of {path} does not fit: the model has {about.layers} layers of {about.heads} heads of width "
            f"{about.width}; export it again with scripts/export.py"
        )


def _prompt(about: WhisperDescription, language: str | None) -> list[int]:
    """The tokens before the text."""
    if about.transcribe is None:
        unused(["language"] if language else [], ONE_LANGUAGE)
        return [about.start, about.no_timestamps]
    if language is None or language not in about.languages:
        known = ", ".join(sorted(about.languages))
        raise UserError(f"the model is multilingual, and language= must be one of {known}, but is {language}")
    return [about.start, about.languages[language], about.transcribe, about.no_timestamps]
