"""The ways to run a Whisper that `mpq.bench.whisper` compares, all with greedy search and the model's own suppression.

A system makes its files and loads them as a function from audio to text. Where an engine has no program of its own for
audio (ONNX Runtime, OpenVINO, CTranslate2), it gets our log-mel features and our loop or prompt.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpq.deploy.log_mel import Inputs, LogMel
from mpq.deploy.runtime import LAYOUTS, read_description
from mpq.deploy.runtime_seq2seq import BRANCH, DECODER, ENCODER, OnnxWhisper, WhisperDescription
from mpq.deploy.vocabulary import read_vocabulary

# The peers are an optional extra.
# pyright: reportMissingImports=false

KINDS = ("Q8_0", "Q5_1", "Q4_0")  # of whisper.cpp's files
Text = Callable[[np.ndarray], str]  # float32 [samples] at 16 kHz -> text
ABOUT, LATER = "description.json", "decoder_with_past.onnx"  # names of files


@dataclass(frozen=True)
class System(ABC):
    """One way to run the model. `libraries` are imported before the load time is measured.

    silence: seconds of it that the encoder gets after a recording, up to 30 s in all.
    """

    name: str
    libraries: tuple[str, ...]
    silence: float

    @abstractmethod
    def make(self, files: Any) -> Path:
        """Write the file or folder that `load` reads, using `files` (`mpq.bench.whisper_files.Files`)."""

    @abstractmethod
    def load(self, path: Path, threads: int) -> Text:
        """Return the function from audio to text, running on `threads` threads."""


class Torch(System):
    """The unmodified transformers model in float32."""

    def make(self, files: Any) -> Path:
        """See `System`."""
        return files.model

    def load(self, path: Path, threads: int) -> Text:
        """See `System`."""
        import torch

        from mpq.models.loading import load, speech_model
        from mpq.models.speech import Choices

        model, processor = load(str(path))
        speech = speech_model(model.float().eval(), processor, Choices(margin_seconds=self.silence))

        def text(audio: np.ndarray) -> str:
            torch.set_num_threads(threads)
            inputs, length = speech.reader.inputs(audio)
            return speech.transcribe(inputs[None], torch.tensor([length]))[0]

        return text


class OrtFloat(System):
    """ONNX Runtime on PyTorch's own export, in our loop."""

    def make(self, files: Any) -> Path:
        """See `System`."""
        return files.float_onnx()

    def load(self, path: Path, threads: int) -> Text:
        """See `System`."""
        recognizer = OnnxWhisper(path, threads=threads, silence=self.silence)
        return lambda audio: recognizer.transcribe([audio])[0]


class OrtInt8(OrtFloat):
    """ONNX Runtime's dynamic quantization of matrix products and look-ups, 8-bit weights, one scale per channel."""

    def make(self, files: Any) -> Path:
        """See `System`."""
        return files.dynamic_int8()


@dataclass(frozen=True)
class Ours(OrtFloat):
    """Our ONNX files in one of their two layouts; `bits` on average, or one of `GIVEN`."""

    bits: str
    layout: str

    def make(self, files: Any) -> Path:
        """See `System`."""
        return files.ours(self.bits, self.layout)


@dataclass(frozen=True)
class CTranslate2(System):
    """CTranslate2, the engine of faster-whisper, with files of `kind` (float32 or int8)."""

    kind: str

    def make(self, files: Any) -> Path:
        """See `System`."""

        def make(path: Path) -> None:
            from ctranslate2.converters import TransformersConverter

            TransformersConverter(str(files.model)).convert(str(path), quantization=self.kind)
            files.beside(path)

        return files.once(f"ctranslate2_{self.kind}", make)

    def load(self, path: Path, threads: int) -> Text:
        """See `System`."""
        import ctranslate2

        texts, about = read_vocabulary(path), description(path)
        inputs = Inputs(LogMel(**about.mel), self.silence)
        model = ctranslate2.models.Whisper(
            str(path), device="cpu", compute_type=self.kind, intra_threads=threads, inter_threads=1
        )

        def text(audio: np.ndarray) -> str:
            features = ctranslate2.StorageView.from_array(np.ascontiguousarray(inputs([audio])))
            prompt = [[about.start, about.no_timestamps]]
            made = model.generate(features, prompt, beam_size=1, max_length=about.longest)
            return b"".join(texts.get(token, b"") for token in made[0].sequences_ids[0]).decode(errors="replace")

        return text


class OpenVinoInt8(System):
    """OpenVINO on PyTorch's own export after NNCF's `compress_weights`, in our loop, with two decoders."""

    def make(self, files: Any) -> Path:
        """See `System`."""

        def make(path: Path) -> None:
            import nncf
            import openvino

            logging.getLogger("nncf").setLevel(logging.ERROR)
            path.mkdir()
            for file in (ENCODER, DECODER, LATER):
                model = openvino.Core().read_model(files.split_onnx() / file)
                model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
                openvino.save_model(model, path / Path(file).with_suffix(".xml"), compress_to_fp16=False)
            files.beside(path)

        return files.once("openvino_int8", make)

    def load(self, path: Path, threads: int) -> Text:
        """See `System`."""
        import openvino

        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}

        def compiled(file: str) -> Any:
            return openvino.Core().compile_model(path / Path(file).with_suffix(".xml"), "CPU", settings)

        decoder = TwoDecoders(_Compiled(compiled(DECODER)), _Compiled(compiled(LATER)))
        recognizer = OnnxWhisper.of(
            _Compiled(compiled(ENCODER)), decoder, description(path), read_vocabulary(path), self.silence
        )
        return lambda audio: recognizer.transcribe([audio])[0]


class _Compiled:
    """An OpenVINO model with the method of onnxruntime's sessions that `OnnxWhisper` calls."""

    def __init__(self, model: Any) -> None:
        self.request = model.create_infer_request()
        self.inputs = {value.get_any_name() for value in model.inputs}

    def run(self, names: Any, inputs: Mapping[str, np.ndarray], options: Any = None) -> list[np.ndarray]:
        """Return all outputs, in the model's order."""
        found = self.request.infer({name: value for name, value in inputs.items() if name in self.inputs})
        return [found[value].copy() for value in self.request.model_outputs]


class TwoDecoders:
    """The decoder for the first step and the one for later steps, as one session of a merged decoder."""

    def __init__(self, first: Any, later: Any) -> None:
        self._first, self._later = first, later

    def run(self, names: Any, inputs: Mapping[str, np.ndarray], options: Any = None) -> list[np.ndarray]:
        """Return the logits and the states; in later steps, those of the encoder are empty."""
        if not inputs[BRANCH][0]:
            return self._first.run(names, inputs)
        logits, *states = self._later.run(names, inputs)
        empty = np.zeros(0, dtype=np.float32)
        layers = zip(states[::2], states[1::2], strict=True)
        return [logits, *(value for pair in layers for value in (*pair, empty, empty))]


@dataclass(frozen=True)
class WhisperCpp(System):
    """whisper.cpp through pywhispercpp, with the file that `mpq.bench.ggml` writes in `kind`."""

    kind: str

    def make(self, files: Any) -> Path:
        """See `System`."""

        def make(path: Path) -> None:
            from mpq.bench import ggml
            from mpq.models.loading import load

            model, _ = load(str(files.model))
            folder = files.float_onnx()
            ggml.write(path, model, LogMel(**description(folder).mel), read_vocabulary(folder), self.kind)

        return files.once(f"ggml_{self.kind.lower()}.bin", make)

    def load(self, path: Path, threads: int) -> Text:
        """See `System`."""
        import pywhispercpp.model

        inputs = Inputs(LogMel(rate=16_000, bins=80, window=400, hop=160, seconds=30), self.silence)
        quiet = {"print_progress": False, "print_realtime": False, "redirect_whispercpp_logs_to": None}
        once = {"temperature_inc": 0.0, "single_segment": True, "no_timestamps": True, "no_context": True}
        model = pywhispercpp.model.Model(str(path), n_threads=threads, language="en", **quiet, **once)

        def text(audio: np.ndarray) -> str:
            found = model.transcribe(audio, audio_ctx=inputs.frames(len(audio)) // 2)
            return "".join(segment.text for segment in found)

        return text


def description(folder: Path) -> WhisperDescription:
    """Read the description of the model, which `Files.beside` wrote."""
    return read_description((folder / ABOUT).read_text(encoding="utf-8"), str(folder / ABOUT), WhisperDescription)


GIVEN = TRAINED, SIZED = "trained", "sized"
BITS = ("8", "4", *GIVEN)


def all_systems(silence: float) -> dict[str, System]:
    """Return the systems by name, the reference first."""
    torch_libraries = ("torch", "transformers.modeling_utils", "transformers.models.whisper.modeling_whisper")
    ort = ("onnxruntime", "mpq.deploy.runtime_seq2seq")
    systems = [
        Torch("torch_float32", torch_libraries, silence),
        OrtFloat("onnxruntime_float32", ort, silence),
        OrtInt8("onnxruntime_dynamic_int8", ort, silence),
        *(CTranslate2(f"ctranslate2_{kind}", ("ctranslate2",), silence, kind) for kind in ("float32", "int8")),
        OpenVinoInt8("openvino_int8", ("openvino",), silence),
        *(WhisperCpp(f"whispercpp_{kind.lower()}", ("pywhispercpp.model",), silence, kind) for kind in KINDS),
        *(
            Ours(f"ours_{layout}_{bits}{'' if bits in GIVEN else 'bit'}", ort, silence, bits, layout)
            for layout in LAYOUTS
            for bits in BITS
        ),
    ]
    return {system.name: system for system in systems}
