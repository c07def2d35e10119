"""The page of one run: everything in its folder, beside its baseline."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from mpq.errors import UserError
from mpq.evaluate.verdict import of_run
from mpq.record.hypotheses import Texts, read_hypotheses, read_references
from mpq.record.result import Result
from mpq.record.run_folder import RunFolder, references_file
from mpq.record.search import StageSearch, read_search
from mpq.report.page.render import Picture, picture, write_page
from mpq.report.page.words import SetSamples, samples
from mpq.report.tables.captions import unit_lines
from mpq.report.tables.column import Column
from mpq.report.tables.columns import find, only
from mpq.report.tables.parts import Block, Part, with_values
from mpq.report.tables.planned import target_text
from mpq.report.tables.system import System
from mpq.search.assignment import from_json

_CODE = Path(__file__).resolve().parents[1]  # tables, figures and templates
_SIZE = ("recipe", "parameters", "target_bits", "average_bits", "coded_bits", "zeros", "activation_bits")
_SIZE = (*_SIZE, "packed_mb", "coded_mb", "ideal_ratio", "packed_ratio", "coded_ratio")
_SETS = ("set_name", "utterances", "words", "wer")
_TESTS = ("difference", "interval", "largest_increase", "z", "p", "alone")
_CHARACTERS = ("cer", "cer_difference", "cer_interval")
_BEFORE = Column(
    "32 bits %",
    lambda run: next((run.wer[name].wer - test.difference for name, test in run.significance.items()), None),
    "word error rate of the 32-bit model, percent",
    format="{:.2f}".format,
)
_STAGES = ("stage", "seconds", "processor-seconds", "devices", "updates", "audio-seconds", "peak memory, GB")


def write_run_page(run: Path | str) -> Path:
    """Write the page of the run in the folder `run` (`<root>/<exp>/seed<k>`) and return its path.

    The page says what the record lacks. Raises: UserError if there is no record, or it can't be read.
    """
    folder = RunFolder.at(run)
    if not folder.result.is_file():
        raise UserError(f"{run} holds no record; run=FOLDER must be a run's folder, such as experiments/NAME/seed0")
    result = folder.read()
    bits = from_json(folder.bits) if folder.bits.is_file() else {}
    stages = read_search(folder.search) if folder.search.is_file() else ()
    content = {
        "result": result,
        "size": Part("Size of the model on disk", "runs", _SIZE).build([result], []),
        "errors": _errors(result),
        "verdict": of_run(result),
        "units": unit_lines([result]),
        "bits": bits,
        "counts": sorted(Counter(bits.values()).items()),
        "pictures": _pictures(result, bits, stages),
        "stages": _STAGES,
        "samples": _samples(folder, result),
        "settings": list(folder.settings().items()),
    }
    return write_page(folder.page, "run.html", content)


def up_to_date_page(run: Path | str) -> Path:
    """Return the run's page, written anew only if something that it is made from is younger than it."""
    folder = RunFolder.at(run)
    if not folder.page.is_file() or not folder.result.is_file():
        return write_run_page(run)
    result = folder.read()
    compared = [test.baseline for test in (result.significance or {}).values()]
    sources = [path for path in folder.path.iterdir() if path.is_file() and path != folder.page]
    sources += [RunFolder.of(folder.root, baseline).result for baseline in compared[:1]]
    sources += [references_file(folder.root, result.provenance.data.name), *_CODE.rglob("*.*")]
    newest = max(path.stat().st_mtime for path in sources if path.exists())
    return folder.page if folder.page.stat().st_mtime > newest else write_run_page(run)


def _errors(result: Result) -> Block:
    """Errors per set, beside those of the 32-bit model if the run was compared with it."""
    shown = [find(name) for name in _SETS]
    if result.significance:
        shown += [_BEFORE, *(find(name) for name in _TESTS)]
    sets = [only(result, name) for name in result.wer]
    shown += with_values([find(name) for name in _CHARACTERS], sets)
    rows = [[column.function(one) for column in shown] for one in sets]
    frame = pd.DataFrame(rows, columns=[column.title for column in shown], dtype=object)
    return Block("Word error rate of each set", tuple(shown), frame, grouped=False)


def _pictures(result: Result, bits: Mapping[str, int], stages: Sequence[StageSearch]) -> dict[str, Picture]:
    from mpq.report.figures import bit_map, searches, time_bars  # here: matplotlib takes a second

    target = target_text(result.bits.target, result.size.target_megabytes)
    made = (result.exp, result.model, result.recipe, result.bits.target, (result.seed,))
    system = System(*made, runs=(result,), target=target)
    found = {}
    if bit_map.is_mixed(bits):
        listed = ", ".join(f"{count} of {value} bits" for value, count in sorted(Counter(bits.values()).items()))
        found["bits"] = picture(
            lambda: bit_map.draw(result.model, {system.label: {result.seed: bits}}),
            f"Map of layers and projections, {len(bits)} weights: {listed}. The table below has the same numbers.",
        )
    if stage := searches.learned(stages):
        found["probabilities"] = picture(
            lambda: searches.draw_probabilities(result.exp, stage),
            f"Heat maps: the probability of each of {stage.candidates} bits at each of {len(stage.sites)} weights, "
            f"over the updates of stage {stage.name}.",
        )
    if searches.has_losses(stages):
        last = [(s.name, s.trajectory[-1].loss) for s in stages if s.trajectory]
        ends = ", ".join(f"{name} ends at {loss:.3f}" for name, loss in last if loss is not None)
        found["losses"] = picture(
            lambda: searches.draw_losses(result.exp, stages), f"Training loss over the updates; {ends}."
        )
    if len(result.time.stages) > 1:
        listed = ", ".join(f"{stage.name} {stage.seconds:.0f} s" for stage in result.time.stages)
        found["time"] = picture(lambda: time_bars.draw([system]), f"Bars of the compression time: {listed}.")
    return found


def _samples(folder: RunFolder, result: Result) -> list[SetSamples] | None:
    """Transcripts beside those of the baseline; None if texts are missing."""
    try:
        references = read_references(references_file(folder.root, result.references))
        systems = {result.exp: read_hypotheses(folder.hypotheses)}
        tests = list((result.significance or {}).values())
        if tests:
            before = tests[0].baseline
            systems = {before.exp: read_hypotheses(RunFolder.of(folder.root, before).hypotheses), **systems}
    except UserError:
        return None
    return samples(_of(references, result), systems)


def _of(references: Texts, result: Result) -> Texts:
    return {name: texts for name, texts in references.items() if name in result.wer}
