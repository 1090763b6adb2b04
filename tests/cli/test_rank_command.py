"""`tunewright rank` from prompts to training data: what is said, and what is refused before any work."""

from __future__ import annotations

import json

import pytest

from tests import ranking
from tests.serving import small_writer
from tests.serving.small_writer import QUESTIONS, TEMPLATE
from tunewright.cli import output, rank_status
from tunewright.data.judgements import Judgements


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    small_writer.run(folder / "questions", template=TEMPLATE)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return tmp_path


@pytest.fixture
def judged(here):
    with ranking.store(here / "judgements.db", prompts=6, completions=3) as store:
        for number in range(4):
            ranking.judge(store, "ann", number, "b>a>c", shown="bac", seconds=3.0 + number)
        ranking.judge(store, "bob", 0, "b>a=c", seconds=9.0)
        ranking.judge(store, "bob", 4, "", flags=["both_bad"])
        ranking.judge(store, "bob", 5, "", flags=["skip"])
        store.write_demonstration(ranking.ids(store)[0], "ann", "Mine.")
    return here


def sample(tunewright, models, *more):
    base = str(models / "questions" / "base")
    return tunewright(
        "rank", "sample", "questions", base, "human", "--runs", str(models), "--prompts", "prompts.jsonl", *more
    )


# ---- sample ----


def test_samples_of_a_run_its_base_and_the_file(tunewright, models, here):
    code, out, err = sample(tunewright, models, "--seed", "1")
    assert (code, out) == (0, " next: tunewright rank serve judgements.db\n")
    assert " 5 prompts\n questions: 10 completions" in err
    with Judgements.open(here / "judgements.db", create=False) as store:
        names = {one.name for one in store.origins()}
        assert names == {"run:questions", str(models / "questions" / "base"), "human"}
        assert all(3 <= len(store.completions(prompt.id)) <= 5 for prompt in store.prompts())


def test_samples_again_and_as_json(tunewright, models, here):
    sample(tunewright, models, "-k", "1", "-o", "j.db")
    code, out, err = sample(tunewright, models, "-k", "1", "-o", "j.db", "--json")
    found = json.loads(out)
    assert (code, err, found["output"], found["prompts"]) == (0, "", "j.db", 5)
    assert found["models"]["questions"] == {"drawn": 0, "known": 5, "repeated": 0, "empty": 0, "cut": 0}
    assert sample(tunewright, models, "-k", "1", "-o", "j.db", "-q")[1:] == ("j.db\n", "")


def test_a_recipe_names_model_data_and_template(tunewright, models, here):
    recipe = {"task": "generate", "model": "run:questions", "data": {"train": "prompts.jsonl"}}
    (here / "recipe.yaml").write_text(json.dumps(recipe))
    code, _, err = tunewright("rank", "sample", "recipe.yaml", "--runs", str(models), "-k", "2", "--limit", "2")
    assert (code, "run:questions: 4 completions" in err) == (0, True)
    recipe["model"], recipe["data"]["template"] = str(models / "questions" / "base"), "{question} {answer}"
    (here / "other.yaml").write_text(json.dumps(recipe))
    code, _, err = tunewright("rank", "sample", "other.yaml", "human", "-k", "1", "-o", "other.db")
    assert code == 0, err
    with Judgements.open("other.db", create=False) as store:
        assert store.prompts()[0].text == "what is tea? ", "the answer is no part of the prompt"
        assert "a tea" in [one.text for one in store.completions(store.prompts()[0].id)]


def test_prompts_with_one_completion_are_told(tunewright, models, here):
    code, out, _ = tunewright("rank", "sample", "human", "--prompts", "prompts.jsonl")
    assert code == 0
    assert out.startswith(" 5 prompts with fewer than two different completions: nobody is asked to rank them\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["questions"], "name the file of prompts with --prompts"),
        (["nothing", "--prompts", "prompts.jsonl"], 'no run "nothing"'),
        (["questions", "questions", "--prompts", "prompts.jsonl"], '"questions" is named twice'),
        (["questions", "-k", "10", "--prompts", "prompts.jsonl"], "10 completions of each prompt are more than the 9"),
        (["questions", "--prompts", "missing.jsonl"], "missing.jsonl"),
        (["human", "--prompts", "prompts.jsonl", "--template", "{nothing}"], "no {column} of the prompts"),
    ],
)
def test_what_is_refused_makes_no_store(tunewright, models, here, arguments, words):
    code, _, err = tunewright("rank", "sample", *arguments, "--runs", str(models))
    assert code in (2, 3)
    assert words in err
    assert err.count("\n") == 1
    if "template" not in err:  # is read with the rows
        assert not list(here.glob("*.db*"))


def test_temperature_zero_needs_one_draw(tunewright, models, here):
    code, _, err = sample(tunewright, models, "--temperature", "0", "-k", "2")
    assert (code, "at temperature 0 every completion is the same" in err) == (2, True)
    assert sample(tunewright, models, "--temperature", "0", "-k", "1")[0] == 0


# ---- export, import ----


def test_export_says_what_it_leaves_out(tunewright, judged):
    code, out, err = tunewright("rank", "export", "judgements.db", "-o", "comparisons.jsonl")
    assert (code, out) == (0, "comparisons.jsonl\n")
    assert err == (
        " 15 comparisons of 5 judgements\n"
        " 1 tie among them has label 0.5, which other tools may not read (--no-ties leaves them out)\n"
        " not written: that all are bad, in 1 judgement (--unpaired FILE writes it)\n"
        " left out: 1 skipped\n"
    )
    assert len((judged / "comparisons.jsonl").read_text().splitlines()) == 15


def test_export_to_stdout_and_both_files(tunewright, judged):
    code, out, _ = tunewright("rank", "export", "judgements.db", "--unpaired", "bad.jsonl", "--no-ties")
    assert code == 0
    assert len([json.loads(line) for line in out.splitlines()]) == 14
    assert [json.loads(line)["label"] for line in (judged / "bad.jsonl").read_text().splitlines()] == [False] * 3


def test_export_as_json_object(tunewright, judged):
    code, out, err = tunewright("rank", "export", "judgements.db", "-o", "c.csv", "--json")
    found = json.loads(out)
    assert (code, err, found["rows"], found["ties"], found["skipped"], found["output"]) == (0, "", 15, 1, 1, "c.csv")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["judgements.db", "--json"], "rows go to stdout"),
        (["judgements.db", "-o", "x.txt"], "doesn't say what to write"),
        (["judgements.db", "-o", "x.jsonl", "--unpaired", "x.jsonl"], "is the target of -o"),
        (["judgements.db", "-o", "x.jsonl", "--format", "pears"], "is no format"),
        (["nowhere.db", "-o", "x.jsonl"], "there is no such file"),
        (["prompts.jsonl", "-o", "x.jsonl"], "is no database of judgements"),
    ],
)
def test_export_refuses_in_a_line(tunewright, judged, arguments, words):
    code, _, err = tunewright("rank", "export", *arguments)
    assert code in (2, 3)
    assert words in err
    assert err.count("\n") == 1
    assert not (judged / "x.jsonl").exists()


def test_import_of_an_export(tunewright, judged):
    tunewright("rank", "export", "judgements.db", "--format", "ranked", "-o", "ranked.jsonl")
    code, out, err = tunewright("rank", "import", "ranked.jsonl", "-o", "new.db")
    assert (code, out) == (0, "new.db\n")
    assert err == " ranked.jsonl: comparisons: 5 judgements of 4 prompts\n"
    code, out, _ = tunewright("rank", "import", "ranked.jsonl", "-o", "new.db", "--json")
    found = json.loads(out)
    assert (code, found["judgements"], found["known"], found["files"][0]["form"]) == (0, 5, 5, "comparisons")


def test_import_of_a_label_studio_file_with_its_columns(tunewright, here):
    result = {"type": "pairwise", "to_name": "x,y", "value": {"selected": "right"}}
    data = {"question": "Tea?", "gpt": "Yes.", "other": "No."}
    task = {"id": 1, "data": data, "annotations": [{"completed_by": 1, "result": [result]}]}
    (here / "tasks.json").write_text(json.dumps([task]))
    code, _, err = tunewright("rank", "import", "tasks.json")
    assert (code, "--completions LEFT,RIGHT" in err) == (3, True)
    code, _, err = tunewright("rank", "import", "tasks.json", "--completions", "gpt, other")
    assert (code, err) == (0, " tasks.json: Label Studio: 1 judgement of 1 prompt\n")


# ---- status, backup ----


def test_status_in_eighty_columns(tunewright, judged):
    code, out, err = tunewright("rank", "status", "judgements.db")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    for words in (
        " prompts       5 of 6 judged, 1 by two",
        " judgements    6, which compare 15 pairs, 1 skipped, 1 all bad",
        " written       1 demonstration",
        " pace          5.0 s a judgement (median)",
        " ties          7 % of 15",
        "gemma over run:tuned",
        "ann, bob",
    ):
        assert words in out, words


def test_status_shows_a_bias_that_is_one(tunewright, here):
    with ranking.store(here / "j.db", prompts=40, completions=2) as store:
        for number in range(40):
            ranking.judge(store, "ann", number, "a>b", shown="ab")
    out = tunewright("rank", "status", "j.db")[1]
    assert "left          100 % of 40 (91–100 %)  ⚠ shuffled, it should be half" in out
    assert "longer        0 % of 40 (0–9 %)  ⚠ length may be what is judged" in out


def test_status_as_json_and_of_nothing(tunewright, judged):
    found = json.loads(tunewright("rank", "status", "judgements.db", "--json")[1])
    assert (found["prompts"], found["quality"]["judgements"], found["wins"][0]["lost"]) == (6, 6, 10)
    assert tunewright("rank", "status", "judgements.db", "-q")[1] == "6\n"
    Judgements.open(judged / "empty.db").close()
    code, out, _ = tunewright("rank", "status", "empty.db")
    assert (code, out) == (0, " prompts       0 of 0 judged\n judgements    0, which compare 0 pairs\n")
    assert json.loads(tunewright("rank", "status", "empty.db", "--json")[1])["quality"]["left"]["share"] is None


@pytest.mark.parametrize("fit", [40, 80, 200])
def test_status_fits_and_has_ascii_signs(judged, fit):
    with Judgements.open(judged / "judgements.db", create=False) as store:
        lines = rank_status.lines(rank_status.status(store), output.ASCII_MARKS, fit)
    assert all(line.isascii() for line in lines)
    assert max(map(len, lines)) <= max(80, fit) if fit >= 80 else True


def test_backup(tunewright, judged):
    assert tunewright("rank", "backup", "judgements.db", "copy.db") == (0, "copy.db\n", "")
    code, _, err = tunewright("rank", "backup", "judgements.db", "copy.db")
    assert (code, "is there already" in err) == (2, True)
    with Judgements.open("copy.db", create=False) as copy:
        assert len(copy.judgements()) == 7
