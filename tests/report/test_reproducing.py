"""The page "Reproducing the paper" agrees with what the commands do."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from mpq.conf import CONF
from mpq.report.tables.planned import planned
from mpq.settings import register_resolvers

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "experiments" / "REPRODUCING.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def updates():
    """Recipe -> updates of all its stages, at scale paper."""
    register_resolvers()
    found = {}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for recipe in dict.fromkeys(row.recipe for row in planned("compression", "hubert_large")):
            cfg = compose("config", ["model=hubert_large", f"recipe={recipe}"])
            found[recipe] = sum(stage.updates for stage in cfg.recipe.stages.values())
    return found


def row(rows, updates):
    return f"| {rows} | {updates:,} | {updates * 160 / 3600:,.0f} h |"


@pytest.mark.parametrize("model", ["wav2vec2_base", "hubert_large"])
def test_rows_and_updates_are_those_of_the_tables(updates, model):
    rows = planned("compression", model)
    assert row(len(rows), sum(updates[row.recipe] for row in rows)) in TEXT


def test_rows_and_updates_of_the_claims_are_those_of_the_loop(updates):
    names = re.search(r"for row in ([\w ]+);", TEXT)[1].split()
    assert all((CONF / "exp" / f"hubert_large_{name}.yaml").is_file() for name in names)
    recipes = {"fp32": "full_precision", "3p5bit": "one_stage", "4bit": "one_stage"}
    found = [recipes.get(name) or re.sub(r"_\d\w*bit$", "", name) for name in names]
    assert row(len(names), sum(updates[recipe] for recipe in found)) in TEXT


def test_the_commands_are_there():
    for script in set(re.findall(r"scripts/\w+\.py", TEXT)):
        assert (ROOT / script).is_file(), script
    for group, name in re.findall(r"(hydra/launcher|table|model)=(\w+)", TEXT):
        assert name in ("all",) or (CONF / group / f"{name}.yaml").is_file(), name
    for link in re.findall(r"\]\((?!http)([^)]+)\)", TEXT):
        page, _, heading = link.partition("#")
        text = (ROOT / "experiments" / page).read_text(encoding="utf-8")
        headings = [line.lstrip("# ").lower() for line in text.splitlines() if line.startswith("#")]
        anchors = [re.sub(r"[^\w -]", "", line).replace(" ", "-") for line in headings]
        assert not heading or heading in anchors, link


def test_the_headline_rows_are_rows_of_scale_real_with_three_seeds_the_first_of_each_first():
    rows, table = (planned(name, "whisper_tiny_en") for name in ("headline", "compression"))
    assert {row.exp for row in rows} <= {row.exp for row in table}
    seeds = {exp: [row.seed for row in rows if row.exp == exp] for exp in {row.exp for row in rows}}
    assert seeds.pop(rows[0].exp) == [0] and all(found == [0, 1, 2] for found in seeds.values())
    assert [row.seed for row in rows[: len(seeds) + 1]] == [0] * (len(seeds) + 1)
    claimed = OmegaConf.load(CONF / "table" / "compression.yaml").claims_at.real
    assert {row.recipe for row in rows} == {"full_precision", "fine_tuned", *claimed}
