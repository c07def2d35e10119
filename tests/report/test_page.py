import base64
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import jiwer
import pytest
from example_records import record, with_characters, write_record
from example_tree import write_tree
from page_reader import check_page

from mpq.errors import UserError
from mpq.record.hypotheses import write_hypotheses
from mpq.record.run_folder import RunFolder
from mpq.report.page.run_page import up_to_date_page, write_run_page
from mpq.report.page.sweep_page import write_sweep_page
from mpq.report.page.words import differences, samples

ROOT = Path(__file__).resolve().parents[2]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = "<script>alert('x')</script> & \"quoted\" {{ 7 * 7 }} </table>"
RUN = "tiny_wav2vec2_3p5bit"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A baseline, a uniform and a one-stage run; then their pages."""
    root = tmp_path_factory.mktemp("records")
    kept = ("fp32", "uniform_2bit", "wav2vec2_3p5bit")
    every = write_tree(root, layers=2)
    for result in every:
        if not result.exp.endswith(kept) or result.seed:
            shutil.rmtree(RunFolder(root, result.exp, result.seed).path)
    run = RunFolder(root, RUN, 0).path
    shutil.copy(RunFolder(root, "tiny_wav2vec2_fp32", 0).path / "hypotheses.jsonl", run / "hypotheses.jsonl")
    (run / "config.yaml").write_text("seed: 0\ndata: {root: null, train: [train]}\n")
    write_sweep_page(root)
    return root


def page_of(root, exp=RUN):
    return check_page((RunFolder(root, exp, 0).path / "report.html").read_text(encoding="utf-8"))


def test_the_words_marked_are_those_of_both_texts_and_the_errors_are_fewest():
    rng = random.Random()
    for _ in range(200):
        said, written = (" ".join(rng.choices("abcde", k=rng.randrange(8))) for _ in range(2))
        parts = list(differences(said, written))
        assert " ".join(p.text for p in parts if p.kind != "added") == said
        assert " ".join(p.text for p in parts if p.kind != "missing") == written
        count = jiwer.process_words(said, written)
        same = sum(len(p.text.split()) for p in parts if p.kind == "same")
        assert same == count.hits


def test_samples_are_the_first_that_differ_and_say_of_how_many():
    said = {"clean": {f"u{i}": "a b" for i in range(9)}}
    before = {"clean": {f"u{i}": "a" if i == 3 else "a b" for i in range(9)}}
    after = {"clean": {f"u{i}": "b" if i % 3 == 0 else "a b" for i in range(9)}}
    (found,) = samples(said, {"32 bits": before, "this": after}, count=2)
    assert [utterance.id for utterance in found.utterances] == ["u0", "u3"]
    assert found.chosen == "3 of 9 utterances whose transcripts differ; the first 2 of them"
    (alone,) = samples(said, {"32 bits": before})
    assert alone.chosen.startswith("1 of 9 utterances with a word error")
    (none,) = samples(said, {"32 bits": said})
    assert none.chosen == "no word error in 9 utterances" and not none.utterances


def test_a_page_shows_character_errors_where_the_record_has_them(tmp_path):
    made = record(RUN, "one_stage", 3.5, change=12)
    texts = []
    for result in (made, with_characters(made)):
        write_record(result, tmp_path)
        write_run_page(RunFolder(tmp_path, RUN, 0).path)
        texts.append(page_of(tmp_path).all("main")[0].text)
    before, text = texts
    assert "32 bits %" in before and "CER" not in before
    for cell in ("CER %", "2.58", "CER change", "+0.07", "CER 95 % interval", "[-0.03, +0.17]", "32 bits %"):
        assert cell in text


def test_a_page_shows_what_the_record_holds(tree):
    page = page_of(tree)
    headings = [element.text for element in page.all("h2")]
    assert headings == [
        "Word error rate", "Size", "Precisions", "How the precisions were learned", "Training loss", "Time",
        "Transcripts", "How it was made",
    ]  # fmt: skip
    assert len(page.all("img")) == 3  # bits, probabilities, loss; one stage needs no picture of its time
    text = page.all("main")[0].text
    for part in ("synthetic speech", "one_stage", "no significant increase", "Struck through", "data.train", "a CPU"):
        assert part in text, part
    for image in page.all("img"):
        picture = base64.b64decode(image.attributes["src"].partition("base64,")[2])
        assert ElementTree.fromstring(picture).tag.endswith("svg")
    words = [element.text for element in page.all("del")]
    assert words[1:] and set(words[1:]) == {"one"}  # which the example's models leave out


def test_the_sweeps_page_leads_to_every_run(tree):
    page = check_page((tree / "report.html").read_text(encoding="utf-8"))
    links = [a.attributes["href"] for a in page.all("a") if not a.attributes["href"].startswith("#")]
    assert len(links) == 3 and all((tree / link).is_file() for link in links)
    titles = [element.text for element in page.all("h3")]
    assert [title.partition(":")[0] for title in titles] == ["Table 1", "Table 2", "Table 3"]
    assert len(page.all("img")) >= 4
    assert "not run" not in page.all("main")[0].text, "planned for the repository, not by whoever has these records"


def test_a_page_is_made_anew_only_when_what_it_shows_has_changed(tree):
    run = RunFolder(tree, RUN, 0)
    later = time.time() + 1000  # than all records and code
    os.utime(run.page, (later, later))
    kept = run.page.stat().st_mtime_ns
    assert up_to_date_page(run.path) == run.page and run.page.stat().st_mtime_ns == kept
    for changed in (run.hypotheses, RunFolder(tree, "tiny_wav2vec2_fp32", 0).result):
        os.utime(changed, (later + 1, later + 1))
        up_to_date_page(run.path)
        assert run.page.stat().st_mtime_ns != kept, changed
        os.utime(changed, (later - 9, later - 9))
        os.utime(run.page, (later, later))


def test_the_same_records_give_the_same_bytes(tree):
    path = RunFolder(tree, RUN, 0).path / "report.html"
    before = path.read_bytes()
    assert write_run_page(path.parent).read_bytes() == before


def test_a_bare_record_has_a_page_and_nothing_in_it_runs(tmp_path):
    nasty = record(RUN, "one_stage", 3.5, change=12, smoke=True)
    stage = replace(nasty.time.stages[0], name=NASTY)
    made = replace(nasty.provenance, command=NASTY, commit=None)
    write_record(replace(nasty, model=NASTY, time=replace(nasty.time, stages=(stage,)), provenance=made), tmp_path)
    write_run_page(RunFolder(tmp_path, RUN, 0).path)
    page = page_of(tmp_path)
    text = page.all("main")[0].text
    assert text.count(NASTY) == 3
    assert "A smoke run" in text and "not in git" in text and "hypotheses, the references" in text


def test_texts_from_records_are_escaped(tmp_path):
    result = record("tiny_wav2vec2_fp32", "full_precision", 32)
    path = write_record(result, tmp_path).parent
    (tmp_path / "references").mkdir()
    texts = {name: {NASTY: "one two"} for name in result.wer}
    write_hypotheses(path / "hypotheses.jsonl", {name: {NASTY: f"one {NASTY}"} for name in result.wer})
    lines = (path / "hypotheses.jsonl").read_text().replace("hypothesis", "reference")
    (tmp_path / "references" / "embedded.jsonl").write_text(lines.replace(f"one {NASTY}"[:5], "one two"))
    assert texts and write_run_page(path)
    assert page_of(tmp_path, result.exp).all("main")[0].text.count("alert('x')") >= 8


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no record; run=FOLDER must be a run's folder"):
        write_run_page(tmp_path)
    with pytest.raises(UserError, match="there is no record below"):
        write_sweep_page(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run=nowhere"], "error: nowhere holds no record"),
        (["rot=x"], "error: unknown argument 'rot=x'; the arguments are run=, root="),
        (["run=a", "root=b"], "error: run= is one run and root= all of them"),
    ],
)
def test_the_scripts_messages_are_one_line(words, message):
    command = [sys.executable, str(ROOT / "scripts" / "report.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith(message), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize(("page", "width"), [("report.html", 500), (f"{RUN}/seed0/report.html", 1280)])
def test_a_page_is_no_wider_than_its_window_and_its_pictures_are_drawn(tree, tmp_path, page, width):
    """In a real browser, which a script inside the page asks; the page's own policy would forbid that script."""
    source = (tree / page).read_text(encoding="utf-8")
    policy = source[source.index("<meta http-equiv") : source.index("<title>")]
    asking = (
        "<script>addEventListener('load', () => document.title = [document.documentElement.scrollWidth, innerWidth,"
        " [...document.images].every(i => i.complete && i.naturalWidth > 100)].join(' '))</script></body>"
    )
    copy = tmp_path / "page.html"
    copy.write_text(source.replace(policy, "").replace("</body>", asking), encoding="utf-8")
    done = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--dump-dom", copy.as_uri(),
        ],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    wide, window, drawn = done.stdout.partition("<title>")[2].partition("</title>")[0].split()
    assert int(wide) <= int(window) == width and drawn == "true"
