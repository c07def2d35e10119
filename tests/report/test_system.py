"""Systems over their seeds: pooling, verdicts, lossless ratios and factors, by hand-made records."""

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from example_records import SETS, record, write_record
from example_tree import MODEL, write_tree

from mpq.errors import UserError
from mpq.evaluate.verdict import margins, of_runs
from mpq.record.result import Bits, Result, StageTime, Time
from mpq.record.shapes import FILE, Shapes, read_shapes, write_shapes
from mpq.report.tables import lossless, system_columns, time_factors
from mpq.report.tables.column import Spread, over_seeds
from mpq.report.tables.columns import only
from mpq.report.tables.planned import target_text
from mpq.report.tables.system import System, compared, load_systems, models_of, sets_of


def run(recipe: str, bits: float, p: dict[str, float] | float = 0.5, seed: int = 0, change: int = 8) -> Result:
    """A record with `change` more errors on each set; its tests have these p values, on all sets or by set."""
    made = record(f"m_{recipe}_{bits:g}bit", recipe, bits, change=change, seed=seed)
    assert made.significance
    values = p if isinstance(p, dict) else dict.fromkeys(SETS, p)
    tests = {name: replace(test, p=values[name]) for name, test in made.significance.items() if name in values}
    return replace(made, significance=tests)


def plain() -> System:
    return system(record("m_fp32", "full_precision", 32))


def system(*runs: Result, seeds: int | None = None) -> System:
    first = runs[0]
    planned = range(seeds or len(runs))
    target = target_text(first.bits.target, first.size.target_megabytes)
    return System(first.exp, "m", first.recipe, first.bits.target, tuple(planned), runs=runs, target=target)


def test_a_system_has_the_verdict_of_the_pooled_change():
    runs = [run("uniform", 4, change=10, seed=k) for k in range(3)]
    tuned = [record("m_fp32_fine_tuned", "fine_tuned", 32, change=-31, seed=k) for k in (1, 2)]
    base, fine, made = compared([plain(), system(*tuned, seeds=3), system(*runs)])
    against = made.verdict(), made.verdict("tuned")
    assert against == (of_runs([(r, base.runs[0]) for r in runs]), of_runs(list(zip(runs[1:], tuned, strict=True))))
    assert [round(found.change.estimate, 9) for found in against] == [100 * 10 / 8000, 100 * 41 / 8000]
    assert against[0].change.seeds == 3 and against[1].change.seeds == 2  # seed against seed
    assert base.verdict() is None and fine.verdict("tuned") is None and fine.no_worse() is True
    assert (made.no_worse(), made.no_worse("tuned")) == (True, False)
    assert (
        system_columns.verdict.function(made) == "no worse" and system_columns.tuned_verdict.function(made) == "worse"
    )
    assert system_columns.needs.function(made) == pytest.approx(against[0].needs)
    assert system_columns.at_margins.function(made).split(", ") == [against[0].at(m) for m in margins()]
    assert system_columns.verdict.function(replace(made, runs=())) == "not run"
    cut = made.only("dev-clean").verdict()
    assert cut == of_runs([(only(r, "dev-clean"), only(base.runs[0], "dev-clean")) for r in runs])
    assert system_columns.interval.function(made.only("dev-clean")) == cut.change.interval != against[0].change.interval


def test_a_record_without_units_has_no_verdict():
    bare = run("uniform", 4)
    bare = replace(bare, wer={name: replace(words, units=None) for name, words in bare.wer.items()})
    _, made = compared([plain(), system(bare)])
    assert made.verdict() is None and made.no_worse() is None and system_columns.verdict.function(made) is None


def test_mapsswe_alone_counts_the_tests_that_find_an_increase():
    one = system(run("uniform", 4), run("uniform", 4, dict.fromkeys(SETS, 0.5) | {"dev-clean": 0.02}, 1))
    assert system_columns.alone.function(one) == "worse 1 of 8" and one.lossless_alone is False
    assert system_columns.alone.function(one.only("dev-clean")) == "worse 1 of 2"
    assert system_columns.alone.function(one.only("dev-other")) == "worse 0 of 2"
    better = system(run("uniform", 4, 1e-9, change=-8))
    assert better.lossless_alone and plain().lossless_alone is None


def test_an_upper_bound_above_zero_is_not_shown_as_zero():
    shown = system_columns.largest_increase
    _, made, better = compared([plain(), system(run("uniform", 4)), system(run("one_stage", 4, change=-300))])
    assert shown.function(made) == made.verdict().change.interval[1] > 0 and shown.function(better) == "none"
    assert shown.text(0.001) == "+0.01" and shown.text(0.256) == "+0.26" and shown.text("none") == "none"


def test_seeds_are_pooled_as_the_caption_says():
    first, second = run("one_stage", 3.5, 0.5), run("one_stage", 3.5, 0.2, seed=1)
    assert first.significance and second.significance
    tests = {name: replace(test, difference=0.5, z=2.5, p=0.012) for name, test in second.significance.items()}
    (found,) = compared([system(first, replace(second, significance=tests), seeds=3)])
    on_set = found.only("dev-other")
    changes = [first.significance["dev-other"].difference, 0.5]
    pooled = system_columns.difference.function(on_set)
    assert pooled == Spread(statistics.fmean(changes), statistics.stdev(changes), 2)
    assert system_columns.difference.text(pooled) == "+0.30 ± 0.28"
    assert system_columns.z.function(on_set) == 2.5 and system_columns.p.function(on_set) == 0.012
    assert system_columns.seeds.function(found) == "2 of 3"


def test_values_over_seeds():
    assert over_seeds([2.0, 2.0]) == 2.0 and over_seeds([None, 3]) == 3 and over_seeds([]) is None
    assert over_seeds([1.0, 2.0, 4.5]) == Spread(2.5, statistics.stdev([1.0, 2.0, 4.5]), 3)
    assert over_seeds(["a", "b", "a"]) == "a, b"


def sized(recipe: str, bits: float, ratio: float, change: int, p: float = 0.5, seed: int = 0) -> Result:
    made = run(recipe, bits, p, seed, change)
    return replace(made, size=replace(made.size, ideal_ratio=ratio, file_ratio=0.9 * ratio))


def test_largest_lossless_ratios_and_their_factors():
    systems = compared(
        [
            plain(),
            system(sized("uniform", 8, 4.0, 0)),
            system(sized("uniform", 4, 5.0, 8)),
            system(sized("uniform", 2, 9.0, 150, 1e-9)),
            system(sized("two_stage_kl", 3.5, 6.0, 150, 1e-9)),
            system(sized("two_stage_gumbel", 3.5, 6.2, 8)),
            system(sized("one_stage", 3.5, 6.4, 8), sized("one_stage", 3.5, 6.6, 8, 0.03, seed=1)),
            system(sized("one_stage_pass2", 3, 7.0, 8)),
            System("m_ptq_gptq_4bit", "m", "ptq_gptq", 4, (0,)),
        ]
    )
    rows = lossless.methods(systems)
    show = {
        m.name: (lossless.ideal.function(m), lossless.bits.function(m), lossless.ideal_alone.function(m)) for m in rows
    }
    assert show == {
        "uniform": (5.0, 4, 5.0),
        "two-stage Gumbel": (6.2, 3.5, 6.2),
        "two-stage KL": ("none", "none", "none"),
        "one-stage": (6.5, 3.5, "none"),
        "one-stage + pass 2": (7.0, 3, 7.0),
        "post-training": ("not run", "not run", "not run"),
    }
    assert all(lossless.ideal_tuned.function(m) is None for m in rows if m.name != "post-training")
    over_uniform, over_two_stage = lossless.factors(systems)
    assert lossless.ideal_factor.function(over_uniform) == pytest.approx(6.5 / 5.0)
    assert lossless.packed_factor.function(over_two_stage) == pytest.approx(6.5 / 6.2)
    assert (
        lossless.factor_alone.function(over_uniform) == "none" and lossless.factor_tuned.function(over_uniform) is None
    )
    assert lossless.paper_factor.function(over_uniform) is None
    paper = [replace(made, model="hubert_large") for made in systems]
    assert [lossless.paper_factor.function(one) for one in lossless.factors(paper)] == ["up to 1.7", "up to 1.9"]
    tuned = system(
        record("m_fp32_fine_tuned", "fine_tuned", 32, change=-60), record("f", "fine_tuned", 32, change=-60, seed=1)
    )
    harder = lossless.methods(compared([*systems, tuned]))
    assert lossless.ideal_tuned.function(harder[0]) == "none" and "fine" not in " ".join(m.name for m in harder)


def timed(recipe: str, bits: float, *stages: tuple[str, float], seed: int = 0) -> Result:
    entries = tuple(StageTime(name, s, 2, 100, 9.0, 10**9, processor_seconds=3 * s) for name, s in stages)
    total = sum(seconds for _, seconds in stages)
    return replace(run(recipe, bits, 0.5, seed), time=Time(total, 2 * total, entries))


def test_the_time_of_two_stages_over_one_at_equal_bits():
    two = system(timed("two_stage_gumbel", 4, ("precision", 50.0), ("estimate", 100.0)))
    one = system(timed("one_stage", 4, ("one_stage", 90.0)), timed("one_stage", 4, ("one_stage", 110.0), seed=1))
    elsewhere = system(timed("two_stage_kl", 3, ("estimate", 1.0)))
    (factor,) = time_factors.time_factors([two, one, elsewhere])
    shown = {
        name: getattr(time_factors, name).function(factor)
        for name in ("seconds", "processor_seconds", "device_seconds", "updates")
    }
    assert shown == {"seconds": 1.5, "processor_seconds": 1.5, "device_seconds": 1.5, "updates": 2.0}
    not_run = time_factors.time_factors([replace(two, runs=()), one])[0]
    assert time_factors.seconds.function(not_run) == "not run"
    large = time_factors.time_factors([replace(two, model="hubert_large"), one])[0]
    assert large.paper == "up to 1.5"


def test_records_are_joined_with_what_is_planned(tmp_path):
    write_tree(tmp_path, "full_precision", "one_stage")
    elsewhere = record(f"{MODEL}_uniform_4bit", "uniform", 4, change=3)
    write_record(elsewhere, tmp_path / "local")  # the run of somebody's own, which no table of the paper may show
    systems = {made.exp: made for made in load_systems("compression", MODEL, tmp_path)}
    assert systems[f"{MODEL}_fp32"].bits is None and systems[f"{MODEL}_fp32"].no_worse() is None
    one, uniform = systems[f"{MODEL}_3p5bit"], systems[f"{MODEL}_uniform_4bit"]
    assert [r.seed for r in one.runs] == list(one.seeds) == [0, 1, 2] and one.command == ""
    assert not uniform.runs and system_columns.wer.function(uniform) == "not run"
    assert "model=tiny_wav2vec2 recipe=uniform target_bits=4 seed=0,1,2" in uniform.command
    assert systems[f"{MODEL}_ptq_rtn_entropy_4bit"].label == "rounded entropy, 4 bits"
    assert systems[f"{MODEL}_3p5bit_a8_dynamic"].label == "one-stage, 3.5 bits, A8 dynamic"
    bits = [made.bits for made in systems.values() if made.recipe == "uniform" and not made.activations]
    assert bits == sorted(bits, reverse=True)


def test_a_size_from_shapes_stands_in_only_for_what_was_not_run(tmp_path):
    size = record("x", "uniform", 5).size
    write_shapes(tmp_path / FILE, {f"{MODEL}_uniform_4bit": Shapes(Bits(4.0, 4.0), size)})
    (four,) = (made for made in load_systems("compression", MODEL, tmp_path) if made.exp == f"{MODEL}_uniform_4bit")
    assert system_columns.ideal_ratio.function(four) == size.ideal_ratio == 6.4
    assert system_columns.wer.function(four) == system_columns.verdict.function(four) == "not run"
    ran = replace(four, runs=(record(four.exp, "uniform", 4, change=1),))
    assert system_columns.ideal_ratio.function(ran) == 8.0
    (tmp_path / FILE).write_text("{")
    with pytest.raises(UserError, match=r"is damaged: .*scripts/sizes\.py"):
        read_shapes(tmp_path / FILE)
    assert read_shapes(Path(tmp_path / "none")) == {}


def test_models_and_sets_come_from_the_configs():
    assert models_of("tiny") == ["tiny_wav2vec2", "tiny_hubert"] and models_of("paper")[0] == "wav2vec2_base"
    assert sets_of("hubert_large") == list(SETS)
    its_own = ["librispeech/test-clean", "speechocean762/test"]  # not those of its data group
    assert sets_of("whisper_tiny_en_all") == its_own
    with pytest.raises(UserError, match="the scales are real, tiny, paper"):
        models_of("large")


def test_packed_sizes_do_not_depend_on_which_files_are_coded():
    packed, size = sized("one_stage", 3.5, 6.4, 8), sized("one_stage", 3.5, 6.4, 8).size
    half = replace(size, file_bytes=size.file_bytes // 2, file_ratio=2 * size.file_ratio, packed_bytes=size.file_bytes)
    coded = replace(packed, size=half, seed=1)
    for runs, coded_ratio in (((packed, coded), None), ((coded, coded), 2 * 0.9 * 6.4)):
        of_all = next(m for m in lossless.methods(compared([plain(), system(*runs)])) if m.name == "one-stage")
        assert lossless.packed.function(of_all) == pytest.approx(0.9 * 6.4, rel=1e-5)
        assert lossless.coded.function(of_all) == (coded_ratio and pytest.approx(coded_ratio))
