"""The model card beside a model: what it is, how it was made and, if measured, how good it is.

The front matter follows the Hugging Face Hub, so that the folder can be uploaded as it is.
"""

from collections.abc import Mapping

import yaml

from mpq.evaluate.significance import in_words
from mpq.evaluate.verdict import of_run
from mpq.markdown import table
from mpq.models.kinds import AUTO_CLASSES, CTC, SEQ2SEQ
from mpq.record.result import Bits, Result, Significance, Size
from mpq.report.tables.recipes import label

_LOADING = """\
```python
from transformers import pipeline

recognise = pipeline("automatic-speech-recognition", model="FOLDER_OR_NAME")
```
"""
_LOADING_PACKED = """\
With the package `mpq` installed:

```python
import mpq  # teaches transformers to read this format
from transformers import AUTO_CLASS, pipeline

recognise = pipeline("automatic-speech-recognition", model="FOLDER_OR_NAME")
model = AUTO_CLASS.from_pretrained("FOLDER_OR_NAME")  # float32 in memory
packed = mpq.MpqConfig(keep_packed=True)
small = AUTO_CLASS.from_pretrained("FOLDER_OR_NAME", quantization_config=packed)  # less memory, slower
```
"""
_TAGS = {CTC: "ctc", SEQ2SEQ: "seq2seq"}


def card(
    result: Result,
    base_model: str | None,
    bits: Mapping[str, int],
    licence: Mapping[str, object] | None = None,
    kind: str = CTC,
    lacks: str = "",
) -> str:
    """The text of README.md for the model of `result`.

    `base_model`: Hub name of what was compressed, None for a model trained here. `bits`: searched site -> bits, empty
    for full precision. `licence`: the licence fields of the compressed model's own card, with the Hub's keys.
    `kind`: of the model, a key of `AUTO_CLASSES`. `lacks`: what the compressed model has and this one lacks
    (`mpq.models.languages.left_behind`).
    """
    language = {} if result.scale == "own" else {"language": "en"}  # the language of the models of conf/model/
    front = _front(licence, base_model, result.recipe, kind) | language
    loading = _loading_packed(kind) if bits else _LOADING
    parts = (loading, _making(result), _errors(result), _precisions(bits), _licence(licence, base_model))
    return _joined(front, result.exp, f"{_what(result, kind)} {lacks}".rstrip() + "\n", *parts)


def card_without_errors(
    name: str,
    licence: Mapping[str, object],
    recipe: str,
    base_model: str | None,
    bits: Bits,
    size: Size,
    sites: Mapping[str, int],
    kind: str,
    how: str,
    lacks: str = "",
) -> str:
    """The text of README.md for a compressed model that was not evaluated.

    `name` and `recipe` are those of a `Result`, `licence`, `base_model`, `kind` and `lacks` as in `card`.
    `sites`: searched site -> bits. `how`: the sentence that says how to measure its word error rate.
    """
    what = f"A {kind} speech recogniser of {size.parameters:,} parameters, {label(recipe)}, {_size(bits, size)}."
    front = _front(licence, base_model, recipe, kind)
    measured = f"WER not measured. {how}\n"
    parts = (_loading_packed(kind), measured, _precisions(sites), _licence(licence, base_model))
    return _joined(front, name, f"{what} {lacks}".rstrip() + "\n", *parts)


def _loading_packed(kind: str) -> str:
    return _LOADING_PACKED.replace("AUTO_CLASS", AUTO_CLASSES[kind])


def _front(licence: Mapping[str, object] | None, base_model: str | None, recipe: str, kind: str) -> dict[str, object]:
    front: dict[str, object] = {
        **(licence or {"license": "other"}),
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["mpq", _TAGS[kind], recipe],
    }
    return front | ({"base_model": base_model} if base_model else {})


def _joined(front: Mapping[str, object], name: str, *parts: str) -> str:
    head = f"---\n{yaml.safe_dump(dict(front), sort_keys=False)}---\n"
    return "\n".join([head, f"# {name}\n", *(part for part in parts if part)])


def _what(result: Result, kind: str) -> str:
    size = result.size
    smoke = "**A smoke run: random weights, useful only for checking that every step runs.** " if result.smoke else ""
    speech = "synthetic speech (eSpeak NG)" if result.provenance.data.synthetic else "recorded speech"
    what = f"{smoke}A {kind} speech recogniser of {size.parameters:,} parameters"
    if result.bits.target is None and size.target_megabytes is None:
        return f"{what}, full precision, 32 bits per weight, evaluated on {speech}."
    return f"{what}, {label(result.recipe)}, {_size(result.bits, size)}. Evaluated on {speech}."


def _size(bits: Bits, size: Size) -> str:
    most = f", made for at most {size.target_megabytes:g} MB" if size.target_megabytes is not None else ""
    coded = f", coded {size.coded:,} bytes, {size.coded_ratio:.2f} times smaller" if size.coded else ""
    once = f" ({bits.coded:.3f} once coded)" if bits.coded else ""
    return (
        f"{bits.average:.3f} bits per weight on average over the transformer's linear layers{once}: "
        f"packed {size.packed:,} bytes, {size.packed_ratio:.2f} times smaller than 32 bits{coded}{most}"
    )


def _making(result: Result) -> str:
    p = result.provenance
    stages = ", ".join(f"{stage.name}: {stage.updates} updates" for stage in result.time.stages) or "none"
    rows = {
        "command": f"`{p.command}`",
        "commit": f"{p.commit}{' with uncommitted changes' if p.dirty else ''}",
        "data": f"{p.data.name}, hash {p.data.hash}",
        "seed": result.seed,
        "training": stages,
        "compression or training time": f"{result.time.seconds:.0f} s on {p.hardware.cpu}"
        + "".join(f", {gpu}" for gpu in p.hardware.gpus),
        "date": p.date,
    }
    return table(["made by", ""], rows.items()) + "\n"


def _errors(result: Result) -> str:
    heads = ["set", "WER %", "errors", "words", "utterances"]
    rows = [[name, f"{w.wer:.2f}", w.errors, w.words, w.utterances] for name, w in result.wer.items()]
    tests = result.significance or {}
    if set(tests) == set(result.wer):
        heads += ["WER % of 32 bits", "change", "95 % interval", "MAPSSWE"]
        rows = [[*row, *_change(w.wer, tests[name])] for row, (name, w) in zip(rows, result.wer.items(), strict=True)]
    counted = [w.characters for w in result.wer.values() if w.characters]
    if len(counted) == len(rows):
        heads += ["CER %", "character errors", "characters"]
        rows = [[*row, f"{c.cer:.2f}", c.errors, c.characters] for row, c in zip(rows, counted, strict=True)]
    verdict = of_run(result)
    compared = f" Against the 32-bit model, over all sets: {verdict.sentence()}." if verdict else ""
    return table(heads, rows) + f"\n\nGreedy decoding, no language model.{compared}\n"


def _change(wer: float, test: Significance) -> list[str]:
    """The cells of the comparison with 32 bits."""
    bounds = "–" if test.interval is None else "{:+.2f} to {:+.2f}".format(*test.interval)
    return [f"{wer - test.difference:.2f}", f"{test.difference:+.2f}", bounds, in_words(test.p)]


def _licence(licence: Mapping[str, object] | None, base_model: str | None) -> str:
    """The sentence for a model of unknown licence; a known licence is in the front matter."""
    if licence:
        return ""
    return f"Licence not stated{f': see the card of {base_model}, which this was made from' if base_model else ''}.\n"


def _precisions(bits: Mapping[str, int]) -> str:
    if not bits:
        return ""
    return table(["weight", "bits"], [(f"`{name}`", value) for name, value in bits.items()]) + "\n"
