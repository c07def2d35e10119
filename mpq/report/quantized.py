"""What scripts/quantize.py says in the end: size, what it costs in words, and how to load it."""

from mpq.deploy.quantize_now import Quantized
from mpq.evaluate.significance import in_words
from mpq.record.rates import Significance, WordErrors

_HOW = {
    "round": "rounded to nearest, precisions by rounding error: no data",
    "gptq": "GPTQ on the recordings, precisions by rounding error: no training",
    "rebudget": "from the precisions that a run learned, without training",
    "one_stage": "precisions and weights trained in one stage",
}


def summary(made: Quantized) -> str:
    """The lines about `made`."""
    size, bits = made.size, made.bits
    lines = [
        f"model   {made.folder} ({_HOW[made.method]})",
        f"size    {size.file_bytes / 1e6:.2f} MB, {size.file_ratio:.2f} times smaller than the float32 model's "
        f"{4 * size.parameters / 1e6:.2f} MB",
        f"bits    {bits.average:.3f} a weight on average over the encoder's linear layers",
        *_words(made),
        "load    import mpq; from transformers import AutoModelForCTC",
        f'        model = AutoModelForCTC.from_pretrained("{made.folder}")',
        f"try     python scripts/transcribe.py audio.wav --model {made.folder}",
    ]
    return "\n".join(lines)


def _words(made: Quantized) -> list[str]:
    """A line about each evaluation set, or why there is none."""
    if made.result is None:
        how = "evaluate=true" if made.method == "rebudget" else "--data FOLDER with transcripts"
        return [f"WER     not measured: that takes {how}"]
    tests = made.result.significance or {}
    return [_wer(name, words, tests.get(name)) for name, words in made.result.wer.items()]


def _wer(name: str, words: WordErrors, test: Significance | None) -> str:
    line = f"WER     {words.wer:.2f} % on {name}, {words.utterances} utterances"
    if test is None:
        return line
    low, high = test.interval
    return (
        f"{line}; {test.difference:+.2f} against float32, 95 % interval [{low:+.2f}, {high:+.2f}], "
        f"{in_words(test.p)} (MAPSSWE)"
    )
