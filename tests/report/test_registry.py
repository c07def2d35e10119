"""Adding a recipe, a precision search or a column takes one place each: everything that shows it finds it there."""

import io
import shutil
import sys

import pytest
from example_tree import MODEL, write_tree
from hydra import compose
from omegaconf import OmegaConf
from rich.console import Console

from mpq import conf, pipeline, settings, stages
from mpq.errors import UserError
from mpq.record.run_folder import RunFolder
from mpq.report.card import card
from mpq.report.figures.gallery import pictures
from mpq.report.figures.style import look, stage_looks, style
from mpq.report.forecast.sizes import predict
from mpq.report.page.sweep_page import write_sweep_page
from mpq.report.tables import columns, recipes, system_columns
from mpq.report.tables.column import Column
from mpq.report.tables.formats import to_csv, to_latex, to_markdown
from mpq.report.tables.planned import planned
from mpq.report.tables.show import build_sheets
from mpq.report.tables.system import load_systems
from mpq.report.tables.terminal import print_sheets

RECIPE = """\
defaults:
  - /search@stages.wobble.search: uniform
name: wobbly
infix: wobbly
stages:
  wobble:
    start_from: teacher
    updates: ${trainer.updates}
"""
SEARCH = """\
from mpq.search.measured import MeasuredSearch

class LargestFirst(MeasuredSearch):
    def __init__(self, candidates=(2, 4, 8), share="tensor"):
        super().__init__(candidates, None, share)

    def _measure(self, calibration):
        import torch
        return torch.tensor([[-float(unit.numel) * bits for bits in self._candidates] for unit in self.units])
"""
TABLE = """\
title: Mine
systems:
  - {recipe: full_precision, bits: [32], seeds: [0], overrides: [OVERRIDE]}
  - {recipe: largest_first, bits: [3.5], seeds: [0], overrides: [OVERRIDE]}
parts:
  - {title: All, rows: systems, columns: [system, average_bits, wer]}
"""


@pytest.fixture
def looks():
    """How the groups of the recipes that are there are drawn."""
    return {group: look(group) for group in recipes.groups()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of `conf/` that everything reads."""
    copy = tmp_path / "conf"
    shutil.copytree(conf.CONF, copy)
    monkeypatch.setattr(conf, "CONF", copy)
    return copy


def add_recipe(folder, text=RECIPE, **stated):
    """Write the recipe and plan it at 3 bits in Table 1."""
    given = OmegaConf.to_yaml(OmegaConf.create(stated)) if stated else ""
    (folder / "recipe" / "wobbly.yaml").write_text(text + given)
    table = folder / "table" / "compression.yaml"
    row = "systems:\n  - {recipe: wobbly, bits: [3], seeds: [0]}\n"
    table.write_text(table.read_text().replace("systems:\n", row, 1))


def composed(*words):
    settings.register_resolvers()
    with conf.composing():
        return compose("config", list(words))


def formats(sheets):
    """Each sheet in each format."""
    stream = io.StringIO()
    print_sheets(sheets, Console(file=stream, width=400))
    return [stream.getvalue(), to_markdown(sheets), to_latex(sheets), to_csv(sheets)]


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("stated", [{}, {"method": "wavering", "label": "wavy"}])
def test_a_recipe_is_one_file_and_its_row_in_a_table(looks, folder, tmp_path, stated):
    add_recipe(folder, **stated)
    shown, root = stated.get("label", "wobbly"), tmp_path / "records"
    write_tree(root, "full_precision", "uniform", "wobbly")
    for sheet in build_sheets("all", conf.folder("table"), root, "tiny"):
        assert all(f"{shown}, 3 bits" in text for text in formats([sheet])), sheet.title
    (system,) = (one for one in load_systems("compression", MODEL, root) if one.recipe == "wobbly")
    assert (system.method, system.group, len(system.runs)) == (stated.get("method", "wobbly"), shown, 1)
    for picture in pictures("tiny", root):
        with style():
            figure = picture.draw()
        if picture.name.endswith("_wer_size"):
            assert shown in legend_of(figure)
        if picture.name.endswith("_time"):
            assert f"{shown}, 3 bits (1)" in [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert f"{shown}, 3 bits" in write_sweep_page(root).read_text(encoding="utf-8")
    assert shown in card(system.runs[0], None, {"a": 3})
    assert {group: look(group) for group in looks} == looks
    everything = [look(group) for group in recipes.groups()]
    assert len(set(everything)) == len(everything) == len(looks) + 1


def test_a_recipe_has_its_size_and_its_name_as_any_other(folder):
    add_recipe(folder)
    (row,) = (row for row in planned("compression", "wav2vec2_base") if row.recipe == "wobbly")
    sizes = dict(predict("wav2vec2_base"))
    assert sizes[row.exp] == sizes["wav2vec2_base_uniform_3bit"]
    assert settings.settle(composed(*row.words)).exp == row.exp


def test_a_method_may_have_several_recipes(folder, tmp_path):
    """A further two-stage recipe is compared as one: in the factors of ratio and of time."""
    add_recipe(folder, method=recipes.TWO_STAGE)
    write_tree(tmp_path, "full_precision", "uniform", "one_stage", "wobbly")
    table = folder / "table" / "compression.yaml"
    table.write_text(table.read_text().replace("{recipe: wobbly, bits: [3]", "{recipe: wobbly, bits: [3.5, 3]"))
    time = build_sheets("time", conf.folder("table"), tmp_path, "tiny")[0]
    assert "wobbly / one-stage" in to_csv([time])


def test_what_no_file_states_is_the_name(looks, folder):
    shutil.rmtree(folder / "recipe")  # as for records whose recipes are no longer there
    assert (recipes.label("an_old_one"), recipes.method("an_old_one")) == ("an old one", "an_old_one")
    assert recipes.is_compressed("an_old_one") and not recipes.is_compressed("full_precision")
    assert look("uniform") == looks["uniform"] and list(look("an old one")) not in recipes.legend()["methods"].values()


@pytest.mark.parametrize(
    ("clipping", "label"),
    [("mse", "rounded MSE"), ("minmax", "rounded min-max"), ("percentile", "rounded percentile")],
)
def test_a_label_may_depend_on_settings(clipping, label):
    cfg = settings.settle(composed("recipe=ptq_rtn", "target_bits=4", f"quantizer.clipping={clipping}"))
    assert (cfg.recipe.label, cfg.recipe.method) == (label, recipes.POST_TRAINING)
    assert (recipes.label(cfg.recipe.name), recipes.method(cfg.recipe.name)) == (label, recipes.POST_TRAINING)


def test_label_and_method_are_no_part_of_what_a_run_is(tmp_path, monkeypatch):
    monkeypatch.setattr("mpq.record.run_folder.from_json", lambda text, source: "the record")
    cfg = settings.settle(composed(f"root={tmp_path}"))
    run = RunFolder(cfg.root, cfg.exp, cfg.seed)
    run.begin(cfg)
    run.result.write_text("{}")
    cfg.recipe.label = "another"
    del cfg.recipe.method
    assert run.finished(cfg, "record") == "the record"
    cfg.recipe.name = "another"
    with pytest.raises(UserError, match=r"recipe\.name"):
        run.finished(cfg, "record")


def test_stages_that_the_legend_lacks_have_colours_of_their_own():
    looks = stage_looks(["uniform", "wobble", "wave", "wobble"])
    assert looks["wobble"][1] == "wobble" and looks["uniform"][1] == "uniform"
    assert len({colour for colour, _ in looks.values()}) == len(looks)


def test_a_search_is_one_class_and_its_file(folder, tmp_path, monkeypatch, model_folder, speech_folder):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "largest_first.py").write_text(SEARCH)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "largest_first", raising=False)
    (folder / "search" / "largest_first.yaml").write_text(
        "_target_: largest_first.LargestFirst\ncandidates: [2, 4, 8]\nshare: tensor\n"
    )
    text = RECIPE.replace("search: uniform", "search: largest_first").replace("wobbly", "largest_first")
    (folder / "recipe" / "largest_first.yaml").write_text(text.replace("${trainer.updates}", "0"))
    (folder / "table" / "mine.yaml").write_text(TABLE.replace("OVERRIDE", f"data.root={speech_folder}"))

    with pytest.raises(UserError, match="target_bits=9 must be between 2 and 8"):
        stages.check_target(settings.settle(composed("recipe=largest_first", "target_bits=9")))
    small = [f"model.path={model_folder}", "data.train=[train]", "data.test=[clean]", "trainer.audio_seconds=3"]
    small += ["trainer.accelerator=cpu", "logger.mode=off", f"root={tmp_path}/records", f"cache={tmp_path}/cache"]
    (_, row) = planned("mine", MODEL)
    result = pipeline.run(composed(*row.words, *small))
    assert result is not None and 3 < result.bits.average <= 3.5 and result.exp == row.exp
    sheets = build_sheets("mine", conf.folder("table"), tmp_path / "records", "tiny")
    assert all("largest first, 3.5 bits" in text for text in formats(sheets))
    shown = sheets[0].blocks[0].frame.set_index("System")
    assert shown.loc["largest first, 3.5 bits", "W bits"] == result.bits.average


def test_a_class_that_is_no_search_is_refused():
    cfg = settings.settle(composed())
    cfg.recipe.stages.one_stage.search = {"_target_": "mpq.quant.gptq.Gptq", "utterances": 1}
    with pytest.raises(UserError, match=r"must be a class derived from mpq\.search\.base\.PrecisionSearch"):
        stages.check_target(cfg)


def test_a_column_is_one_statement_and_its_name_in_a_table(folder, tmp_path, monkeypatch):
    words = Column("Heard", lambda r: sum(e.words for e in r.wer.values()), "of all sets", format="{:,}".format)
    monkeypatch.setattr(columns, "words_heard", words, raising=False)
    monkeypatch.setattr(system_columns, "words_heard", system_columns.lifted(words), raising=False)
    for name, first in (("records", "columns: [system, target_bits,"), ("compression", "columns: [system, seeds,")):
        table = folder / "table" / f"{name}.yaml"
        table.write_text(table.read_text().replace(first, f"{first} words_heard,"))
    write_tree(tmp_path / "records", "full_precision", "uniform")
    for name in ("records", "compression"):
        for text in formats(build_sheets(name, conf.folder("table"), tmp_path / "records", "tiny")):
            assert "Heard" in text and ("32,000" in text or "32000" in text)
    page = write_sweep_page(tmp_path / "records").read_text(encoding="utf-8")
    assert "Heard" in page and "32,000" in page


@pytest.mark.parametrize("model", conf.names("model"))
def test_a_model_s_files_say_without_composing_what_hydra_composes(model):
    with conf.composing():
        composed = OmegaConf.to_container(compose("config", [f"model={model}"]), resolve=False)
    assert conf.model(model) == {key: composed["model"][key] for key in conf.model(model)}
    assert {"name", "scale", "path", "searched", "architecture"} <= conf.model(model).keys()
    data = conf.data_of(model)
    assert data == {key: composed["data"][key] for key in data} and data.get("test", []) == composed["data"]["test"]
