"""Systems made for a size or for coded bits: planned rows, found records, the table and the picture by coded size."""

import re
import shutil

import pytest
import yaml
from example_records import SETS, coded, record, write_record

from mpq import conf
from mpq.errors import UserError
from mpq.evaluate.verdict import of_runs
from mpq.report.figures import wer_size
from mpq.report.figures.gallery import pictures
from mpq.report.figures.style import style
from mpq.report.tables.lossless import with_coded_files
from mpq.report.tables.planned import planned
from mpq.report.tables.show import build_sheets, show_table
from mpq.report.tables.system import load_systems

MODEL = "tiny_wav2vec2"
PLAIN, FOUR = f"{MODEL}_fp32", f"{MODEL}_uniform_4bit"
LEARNED, STAGED, SIZED = f"{MODEL}_one_stage_rate_2bit", f"{MODEL}_3bit_coded", f"{MODEL}_ptq_gptq_size_0p25mb"
SYSTEMS = [
    {"recipe": "one_stage_rate", "bits": [2], "seeds": [0, 1]},
    {"recipe": "one_stage", "bits": [3], "seeds": [0], "overrides": ["budget=coded"]},
    {"recipe": "ptq_gptq_size", "megabytes": {MODEL: [0.25, 0.2], "tiny_hubert": [0.3]}, "seeds": [0]},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of `conf/` whose table `coded` has the rows of a table `first`, and SYSTEMS."""
    copy = tmp_path_factory.mktemp("tables") / "conf"
    shutil.copytree(conf.CONF, copy)
    first = {"systems": [{"recipe": "full_precision", "bits": [32], "seeds": [0]}]}
    first["systems"].append({"recipe": "uniform", "bits": [8, 6, 4], "seeds": [0]})
    path = copy / "table" / "coded.yaml"
    content = yaml.safe_load(path.read_text()) | {"systems": ["first", *SYSTEMS]}
    path.write_text(yaml.safe_dump(content))
    (copy / "table" / "first.yaml").write_text(yaml.safe_dump(first))
    return copy


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Records of every system but one; 6 bits are not coded, and 8 bits have a smaller coded file than 4."""
    made = tmp_path_factory.mktemp("records")
    write_record(record(PLAIN, "full_precision", 32), made)
    write_record(record(f"{MODEL}_uniform_6bit", "uniform", 6, change=0), made)
    write_record(coded(record(f"{MODEL}_uniform_8bit", "uniform", 8, change=5), 0.38), made)
    write_record(coded(record(FOUR, "uniform", 4, change=1), 0.4), made)
    for seed, (megabytes, change) in enumerate([(0.398, 2), (0.4, -2)]):
        write_record(coded(record(LEARNED, "one_stage_rate", 2, change=change, seed=seed), megabytes), made)
    write_record(coded(record(STAGED, "one_stage", 3, change=150), 0.3), made)
    write_record(coded(record(SIZED, "ptq_gptq_size", 3, change=3), 0.2499, 0.25), made)
    return made


@pytest.fixture
def tables(folder, monkeypatch):
    monkeypatch.setattr(conf, "CONF", folder)
    return folder / "table"


def test_a_row_has_a_size_in_place_of_bits_for_each_model(tables, root):
    rows = {(row.exp, row.seed): row for row in planned("coded", MODEL)}
    assert next(iter(rows)) == (PLAIN, 0) and {(FOUR, 0), (LEARNED, 0), (LEARNED, 1), (STAGED, 0)} < set(rows)
    assert rows[SIZED, 0].words == [f"model={MODEL}", "recipe=ptq_gptq_size", "target_megabytes=0.25", "seed=0"]
    assert [row.exp for row in planned("coded", "tiny_hubert")][-1] == "tiny_hubert_ptq_gptq_size_0p3mb"
    assert not [row for row in planned("coded", "hubert_large") if row.megabytes]  # no size was given for it
    systems = {system.exp: system for system in load_systems("coded", MODEL, root)}
    labels = [systems[exp].label for exp in (FOUR, LEARNED, STAGED, SIZED)]
    assert labels == [
        "uniform, 4 bits",
        "one-stage, learned steps, 2 coded bits",
        "one-stage, 3 coded bits",
        "GPTQ for a size, 0.25 MB",
    ]
    assert [run.exp for run in systems[SIZED].runs] == [SIZED] and systems[SIZED].command == ""
    missing = systems[f"{MODEL}_ptq_gptq_size_0p2mb"]
    assert missing.command.split()[2:] == [*rows[missing.exp, 0].words, f"root={root}"] and not missing.runs
    assert systems[SIZED].bits is systems[STAGED].bits is None and systems[FOUR].bits == 4


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({}, "must have either bits or megabytes: {'recipe': 'ptq_rtn_size', 'seeds': [0]}"),
        ({"bits": [4], "megabytes": {MODEL: [1]}}, "must have either bits or megabytes"),
        ({"megabytes": [0.25]}, "megabytes=[0.25] of a table's system must name models: {MODEL: [MEGABYTES, ...]}"),
    ],
)
def test_a_row_without_a_target_is_refused(tables, entry, told):
    content = {"systems": [{"recipe": "ptq_rtn_size", "seeds": [0], **entry}]}
    (tables / "wrong.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=re.escape(told)):
        planned("wrong", MODEL)


def test_the_table_by_coded_size(tables, root):
    (sheet,) = build_sheets("coded", tables, root, "tiny")
    sizes, methods, factors, missing = (block.frame for block in sheet.blocks)
    assert list(sizes["System"]) == [
        "32 bits",
        "uniform, 4 bits",
        "one-stage, learned steps, 2 coded bits",
        "uniform, 8 bits",
        "one-stage, 3 coded bits",
        "GPTQ for a size, 0.25 MB",
    ]
    assert [found if found is None else getattr(found, "mean", found) for found in sizes["Coded MB"]] == pytest.approx(
        [None, 0.4, 0.399, 0.38, 0.3, 0.2499]
    )
    learned, sized = sizes.iloc[2], sizes.iloc[5]
    float_megabytes = 1.43 * 4  # of the invented records, but for the rounding of their bytes
    ratios = [float_megabytes / megabytes for megabytes in (0.398, 0.4)]
    assert learned["Coded ratio"].mean == pytest.approx(sum(ratios) / 2, rel=1e-4)
    assert (learned["Seeds"], learned["Zeros %"], learned["Coded bits"]) == ("2 of 2", 25, 2.5)
    runs = {s.exp: s.runs for s in load_systems("coded", MODEL, root)}
    change = of_runs([(run, runs[PLAIN][0]) for run in runs[LEARNED]]).change
    assert (learned["Change"], learned["95 % interval"]) == (change.estimate, change.interval)
    assert change.estimate == pytest.approx(0) and sized["Change"] == pytest.approx(100 * 3 / 8000)
    assert sized["WER % dev-other"] == pytest.approx(100 * 803 / 8000)
    assert list(sizes["Verdict"][1:]) == ["no worse", "no worse", "no worse", "worse", "no worse"]

    assert list(methods.itertuples(index=False, name=None)) == [
        ("uniform", pytest.approx(float_megabytes / 0.38, rel=1e-4), "uniform, 8 bits", "1 of 1"),
        ("one-stage", "none", "none", "none"),
        ("post-training", pytest.approx(float_megabytes / 0.2499, rel=1e-4), "GPTQ for a size, 0.25 MB", "1 of 1"),
        ("one-stage, learned steps", pytest.approx(sum(ratios) / 2, rel=1e-4), sizes["System"][2], "2 of 2"),
    ]
    assert dict(factors.itertuples(index=False, name=None)) == {
        "one-stage / uniform": "none",
        "post-training / uniform": pytest.approx(0.38 / 0.2499, rel=1e-4),
        "one-stage, learned steps / uniform": pytest.approx(sum(ratios) / 2 * 0.38 / float_megabytes, rel=1e-4),
    }
    assert list(missing["System"]) == ["GPTQ for a size, 0.2 MB"]


def test_without_a_coded_file_there_is_no_table(tables, tmp_path):
    write_record(record(PLAIN, "full_precision", 32), tmp_path)
    write_record(record(FOUR, "uniform", 4, change=1), tmp_path)
    assert build_sheets("coded", tables, tmp_path, "tiny") == []
    with pytest.raises(
        UserError, match=r"no model of scale tiny has .* table=coded; .* model=tiny_wav2vec2,tiny_hubert"
    ):
        show_table("coded", tables, tmp_path)


def test_the_picture_by_coded_size_rings_the_smallest_lossless_system_of_each_method(tables, root):
    (picture,) = (picture for picture in pictures("tiny", root, "first") if picture.name == f"{MODEL}_wer_coded")
    assert picture.headline and picture.shows == f"{MODEL}: word error rate against coded size"
    systems = with_coded_files(load_systems("coded", MODEL, root))
    with style():
        panels = wer_size.draw(systems, {}, measure="coded").axes
    assert [label.get_text() for label in panels[-1].get_xticklabels()] == ["0.25", "0.3", "0.38", "0.4"]
    assert panels[-1].get_xlabel().startswith("size of the coded file in MB")
    for name, axes in zip(SETS, panels, strict=True):
        ringed = [line for line in axes.lines if line.get_markersize() == 15]
        smallest = [
            s for s in systems if s.label in ("uniform, 8 bits", "GPTQ for a size, 0.25 MB") or s.exp == LEARNED
        ]
        rates = [sum(run.wer[name].wer for run in s.runs) / len(s.runs) for s in smallest]
        assert sorted(line.get_ydata()[0] for line in ringed) == pytest.approx(sorted(rates)) and len(rates) == 3
