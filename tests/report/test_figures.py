"""The pictures: what is drawn, from which values, and that the same records give the same bytes."""

import random
from dataclasses import replace

import numpy as np
import pytest
from example_records import with_characters
from example_tree import MODEL, write_tree

from mpq.errors import UserError
from mpq.evaluate.pooled import NO_WORSE, UNDECIDED, WORSE
from mpq.record.result import Units
from mpq.record.search import Snapshot, StageSearch
from mpq.report.figures import bit_map, searches, time_bars, wer_size
from mpq.report.figures.bit_map import place, projections, rows
from mpq.report.figures.gallery import _intervals, draw_all, pictures
from mpq.report.figures.style import look, save, style
from mpq.report.figures.wer_size import Point, front
from mpq.report.tables.recipes import groups
from mpq.report.tables.system import load_systems


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    write_tree(folder, "full_precision", "uniform", "one_stage")
    return folder


@pytest.fixture(scope="module")
def systems(root):
    return load_systems("compression", MODEL, root)


def test_the_front_is_what_no_other_point_beats():
    points = [Point(random.random(), random.random()) for _ in range(60)]
    best = front(points)
    for point in points:
        beaten = any(p.size <= point.size and p.rate <= point.rate and p != point for p in points)
        assert (point in best) == (not beaten)
    assert [p.size for p in best] == sorted(p.size for p in best)


def test_every_method_looks_different():
    assert len({look(name)[0] for name in groups()}) == len({look(name)[1] for name in groups()}) == len(groups())


def test_where_a_weight_stands():
    assert place("wav2vec2.encoder.layers.11.attention.out_proj.weight") == (("encoder", 11), "output")
    assert place("wavlm.encoder.layers.0.feed_forward.output_dense.weight") == (("encoder", 0), "FF out")
    assert place("x.y.weight") == (("", 0), "x.y")
    names = [f"m.encoder.layers.0.attention.{name}.weight" for name in ("out_proj", "k_proj", "extra", "q_proj")]
    assert projections(names) == ["query", "key", "output", "attention.extra"]


def test_no_two_weights_share_a_place():
    attention, inner = ("q_proj", "k_proj", "v_proj", "out_proj"), ("intermediate_dense", "output_dense")
    conformer = [f"w.encoder.layers.{n}.ffn{k}.{name}.weight" for n in (0, 1) for k in (1, 2) for name in inner]
    encoder = [f"model.encoder.layers.{n}.self_attn.{name}.weight" for n in (0, 1) for name in attention]
    decoder = [
        f"model.decoder.layers.{n}.{a}.{name}.weight"
        for n in (0, 1)
        for a in ("self_attn", "encoder_attn")
        for name in attention
    ]
    for sites in (conformer, [*decoder, *encoder]):
        assert len({place(site) for site in sites}) == len(sites)
    assert list(rows([*decoder, *encoder]).values()) == ["encoder 0", "encoder 1", "decoder 0", "decoder 1"]
    assert list(rows(conformer).values()) == ["0", "1"]
    assert projections([*decoder, *encoder])[3:5] == ["output", "cross query"]


def test_wer_against_size(systems):
    with style():
        figure = wer_size.draw(systems, {"dev-clean": (4.0, 6.0)})
    panel = figure.axes[0]
    assert [axes.get_title() for axes in figure.axes] == ["dev-clean", "dev-other", "test-clean", "test-other"]
    assert panel.get_ylabel() == "WER, %" and figure.axes[3].get_xlabel().startswith("bits a weight")
    drawn = {round(line.get_ydata()[0], 9) for line in panel.lines}
    one = next(system for system in systems if system.label == "uniform, 8 bits")
    mean = np.mean([run.wer["dev-clean"].wer for run in one.runs])
    assert round(mean, 9) in drawn
    baseline = next(system for system in systems if system.recipe == "full_precision").runs[0].wer["dev-clean"].wer
    assert round(baseline, 9) in drawn
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    expected = ["uniform", "one-stage", "32 bits", "its 95 % interval, unpaired", "Pareto front of a method"]
    assert names[:5] == expected


def test_every_system_has_a_place_and_one_far_above_is_shown_at_the_edge(systems):
    (far,) = (system for system in systems if system.label == "uniform, 2 bits")
    run = far.runs[0]
    lost = replace(run, wer={name: replace(words, wer=99.5) for name, words in run.wer.items()})
    changed = [replace(far, runs=(lost,)) if system is far else system for system in systems]
    with style():
        figure = wer_size.draw(changed, {})
    panel = figure.axes[0]
    assert [text.get_text() for text in panel.texts] == ["↑ 99.5"] and panel.get_ylim()[1] < 10
    markers = [line for line in panel.lines if line.get_marker() not in ("None", None, "_", "|")]
    places = [line.get_xdata()[0] for line in markers if line.get_markersize() < 15]  # without the rings
    shown = [
        system for system in systems if system.runs and system.recipe != "full_precision" and not system.activations
    ]
    assert len(places) == len(set(places)) == len(shown)
    labels = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    megabytes = np.mean([system.runs[0].size.file_bytes / 1e6 for system in shown if system.bits == 4])
    assert f"4 bits\n{megabytes:.3g}" in labels


def test_the_interval_of_32_bits_is_that_of_its_record(root, systems):
    run = next(system for system in systems if system.recipe == "full_precision").runs[0]
    assert _intervals(systems) == {"wer": {}}  # the example's records have none
    known = replace(run, wer={name: replace(words, interval=(4.0, 6.5)) for name, words in run.wer.items()})
    found = _intervals([replace(s, runs=(known,)) if s.recipe == "full_precision" else s for s in systems])
    with style():
        figure = wer_size.draw(systems, found["wer"])
    patch = figure.axes[0].patches[0].get_extents().transformed(figure.axes[0].transData.inverted())
    assert (patch.y0, patch.y1) == pytest.approx((4.0, 6.5))


def test_character_error_rates_have_pictures_where_every_run_has_them(root, systems, tmp_path):
    assert not [picture for picture in pictures("tiny", root) if "_cer_" in picture.name]
    counted = [replace(system, runs=tuple(map(with_characters, system.runs))) for system in systems]
    found = _intervals(counted)
    assert list(found) == ["wer", "cer"]
    with style():
        figure = wer_size.draw(counted, found["cer"], "cer")
    panel = figure.axes[0]
    assert panel.get_ylabel() == "CER, %" and "character error rate against size" in figure.get_suptitle()
    uniform = next(system for system in counted if system.label == "uniform, 8 bits")
    mean = np.mean([run.wer["dev-clean"].characters.cer for run in uniform.runs])
    assert round(mean, 9) in {round(line.get_ydata()[0], 9) for line in panel.lines}


@pytest.mark.parametrize("rate", ["wer", "cer"])
@pytest.mark.parametrize("verdict", [NO_WORSE, UNDECIDED, WORSE])
def test_markers_are_filled_as_the_verdict_in_the_rate_that_is_shown(systems, rate, verdict):
    (made,) = (system for system in systems if system.label == "uniform, 4 bits")
    changes = {NO_WORSE: [-3, 2] * 5, UNDECIDED: [-90, 100] * 5, WORSE: [88, 92] * 5}[verdict]
    base, run = made.plain[0], made.runs[0]
    counts = {f"s{k}": (80, 800) for k in range(10)}
    more = {name: (80 + changes[k], 800) for k, name in enumerate(counts)}

    def with_units(result, words, letters):
        letters = {name: replace(one.characters, units=Units("speaker", letters)) for name, one in result.wer.items()}
        return replace(result, wer={
            name: replace(one, units=Units("speaker", words), characters=letters[name])
            for name, one in result.wer.items()
        })  # fmt: skip

    pair = (counts, more) if rate == "cer" else (more, counts)
    seen = with_units(with_characters(run), *pair), with_units(with_characters(base), counts, counts)
    with style():
        figure = wer_size.draw([replace(made, runs=seen[:1], plain=seen[1:])], {}, rate)
    for axes in figure.axes:
        fills = {line.get_fillstyle() for line in axes.lines if line.get_marker() == look("uniform")[1]}
        assert fills == {wer_size.FILLED[verdict]}
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [text for text in told if text.split(" (")[0] in wer_size.FILLED] == [told[-1]]
    assert told[-1].startswith(verdict)


def test_the_bit_map_shows_every_weight():
    bits = {f"m.encoder.layers.{i}.attention.{name}_proj.weight": 2 + 2 * i for i in range(3) for name in "qkv"}
    with style():
        figure = bit_map.draw("m", {"one-stage, 3 bits": {0: bits, 1: bits}, "two-stage KL, 3 bits": {0: bits}})
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert sorted(axes.get_title() for axes in panels) == [
        "one-stage, 3 bits, seed 0",
        "one-stage, 3 bits, seed 1",
        "two-stage KL, 3 bits, seed 0",
    ]
    cells = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in panels[0].texts}
    assert cells == {(i + 0.5, j + 0.5): str(2 + 2 * i) for i in range(3) for j in range(3)}
    assert not bit_map.is_mixed({"a": 4, "b": 4}) and bit_map.is_mixed({"a": 4, "b": 2})


def test_time_bars_add_up(systems):
    with style():
        figure = time_bars.draw(systems)
    panel = figure.axes[0]
    run = [system for system in systems if any(result.time.stages for result in system.runs)]
    assert panel.get_yticklabels()[0].get_text() == "uniform, 8 bits (3)"
    widths = [sum(bar.get_width() for bar in panel.patches if round(bar.get_y() + 0.35) == i) for i in range(len(run))]
    assert widths == pytest.approx([np.mean([r.time.seconds for r in system.runs]) for system in run])
    assert [axes.get_xlabel().split(",")[0] for axes in figure.axes] == ["wall-clock seconds", "processor-seconds"]


def test_probabilities_of_a_measured_search_are_not_drawn(root):
    names = [picture.name for picture in pictures("tiny", root)]
    assert f"{MODEL}_3p5bit_probabilities" in names and f"{MODEL}_uniform_4bit_probabilities" not in names
    assert searches.learned([]) is None


@pytest.mark.parametrize("averages", [(3.0, 3.0, 3.0), (7.1, 4.9, 3.0)])
def test_a_budget_that_came_down_is_written_above_the_updates(averages):
    shots = tuple(Snapshot(10 * k, 1.0, 1.0, a, ((0.5, 0.5),)) for k, a in enumerate(averages, 1))
    stage = StageSearch("one_stage", "gumbel", (2, 8), 3.0, ("m.layers.0.q_proj.weight",), (4,), shots)
    with style():
        figure = searches.draw_probabilities("m", stage)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["0 query"]
    for panel in figure.axes[:2]:
        labels = [[label.get_text() for label in axes.get_xticklabels()] for axes in panel.child_axes]
        assert labels == ([["7.1", "4.9", "3"]] if averages[0] > 3 else [])


def test_the_same_records_give_the_same_bytes(root, tmp_path):
    picture = next(p for p in pictures("tiny", root) if p.name == f"{MODEL}_3p5bit_probabilities")
    first, second = (save(picture.draw, tmp_path / name, picture.name) for name in ("a", "b"))
    assert [path.suffix for path in first] == [".png", ".svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert b"Matplotlib" not in first[0].read_bytes() and b"<dc:date>" not in first[1].read_bytes()


def test_without_records_there_is_nothing_to_draw(tmp_path):
    with pytest.raises(UserError, match="no model of scale tiny has a record below"):
        draw_all("tiny", tmp_path, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()
