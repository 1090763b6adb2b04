"""init, schema and demo: from nothing to a first run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.finished_run import RUN
from tunewright.cli import start
from tunewright.data import reviews
from tunewright.data.reviews import PROMPTS, ReviewFiles
from tunewright.recipe_files import build_recipe, load_recipe, read_yaml


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init_writes_a_recipe_that_loads(here, tunewright):
    code, out, _ = tunewright("init", "project")
    assert code == 0
    recipe = load_recipe(Path("project/tunewright.yaml"))
    assert recipe.data.train == "project/reviews.jsonl"
    assert recipe.evaluation.prompts == ["It was good.", "This one is a pass."]
    rows = [json.loads(line) for line in Path("project/reviews.jsonl").read_text().splitlines()]
    assert {row["label"] for row in rows} == {"positive", "negative"}
    assert len({row["text"] for row in rows}) == len(rows) == 24
    assert out.splitlines()[-1] == " next   tunewright train project/tunewright.yaml"


def test_init_points_the_editor_at_a_schema_that_is_there(here, tunewright):
    assert tunewright("init", "-q") == (0, "tunewright.yaml\n", "")
    first = Path("tunewright.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=.tunewright/schema.json"
    schema = json.loads(Path(".tunewright/schema.json").read_text())
    given = read_yaml(Path("tunewright.yaml"))
    assert given.keys() <= schema["properties"].keys()


def test_init_for_data_of_ones_own(here, tunewright):
    Path("my.csv").write_text(
        "id,body text,stars\n" + "".join(f"{i},I saw film number {i},{i % 2}\n" for i in range(20))
    )
    code, _, err = tunewright("init", "project", "--data", "my.csv")
    assert code == 0, err
    recipe = load_recipe(Path("project/tunewright.yaml"))
    assert Path(recipe.data.train).resolve() == (here / "my.csv").resolve()
    assert (recipe.data.text, recipe.data.label) == ("body text", "stars")
    assert not Path("project/reviews.jsonl").exists()


@pytest.mark.parametrize(
    ("row", "task", "words"),
    [
        ('{"question": "What is %d?", "answer": "It is %d."}', "generate", "template question-answer"),
        (
            '{"messages": [{"role": "user", "content": "%d?"}, {"role": "assistant", "content": "%d."}]}',
            "generate",
            "mess",
        ),
        ('{"text": "Once upon a time %d times %d"}', "continue", "plain text"),
    ],
)
def test_init_for_data_that_a_model_is_to_write(here, tunewright, row, task, words):
    Path("my.jsonl").write_text("".join(f"{row % (i, i)}\n" for i in range(20)))
    code, _, err = tunewright("init", "project", "--data", "my.jsonl")
    assert code == 0, err
    recipe = load_recipe(Path("project/tunewright.yaml"))
    assert (recipe.task, recipe.model, recipe.data.template) == (task, "gemma3-270m", None)
    assert Path(recipe.data.train).resolve() == (here / "my.jsonl").resolve()
    assert words in Path("project/tunewright.yaml").read_text()
    assert recipe.data.text == ("text" if task == "continue" else "auto")


def test_init_overwrites_nothing(here, tunewright):
    Path("tunewright.yaml").write_text("mine")
    Path("reviews.jsonl").write_text("mine")
    code, _, err = tunewright("init")
    assert code == 2
    assert err == "error[usage] tunewright.yaml: exists already; remove it, or give another DIR\n"
    Path("tunewright.yaml").unlink()
    assert tunewright("init")[0] == 0
    assert Path("reviews.jsonl").read_text() == "mine"


def test_schema_of_all_of_one_and_of_a_part(here, tunewright):
    assert json.loads(tunewright("schema")[1])["title"] == "Recipe"
    one = tunewright("schema", "--field", "training.learning_rate")[1]
    assert one.startswith("training.learning_rate: number | auto  (default: auto)\n")
    part = tunewright("schema", "--field", "trainable")[1]
    assert {"trainable.rank", "trainable.alpha"} <= {line.split(":")[0] for line in part.splitlines()}
    assert list(json.loads(tunewright("schema", "--field", "training.seed", "--json")[1])) == ["training.seed"]


def test_schema_of_an_unknown_setting(here, tunewright):
    code, out, err = tunewright("schema", "--field", "training.lr")
    assert (code, out) == (2, "")
    assert err == 'error[recipe] "training.lr" is not a setting. Did you mean "training.learning_rate"?\n'


def test_demo_trains_on_reviews_and_knows_the_right_answers(calls, tunewright, monkeypatch):
    def write_reviews(folder: Path) -> ReviewFiles:
        folder.mkdir()
        for name in ("train", "validation"):
            (folder / f"{name}.jsonl").touch()
        return ReviewFiles(folder / "train.jsonl", folder / "validation.jsonl", 2000, 400, 10605, 7077)

    monkeypatch.setattr(reviews, "write_reviews", write_reviews)
    code, out, err = tunewright("demo", "-s", "training.epochs=1")
    assert code == 0, err
    recipe = calls[0]["recipe"]
    assert recipe.model == "minilm"
    assert recipe.evaluation.prompts == [
        "It was good.",
        "Not a fan, don't recommed.",
        "Better than the first one.",
        "This is not worth watching even once.",
        "This one is a pass.",
    ]
    assert recipe.data.train == str(Path("tunewright-demo/train.jsonl"))
    assert recipe.training.epochs == 1
    assert "10,605 rated sentences" in err
    assert "fixed" in out and "broke" in out
    assert f"tunewright predict {RUN}" in out


def test_the_demo_recipe_is_a_recipe():
    import yaml

    recipe = build_recipe(yaml.safe_load(start.demo_recipe(list(PROMPTS))))
    assert recipe.evaluation.prompts == list(PROMPTS)
    assert recipe.training.learning_rate == 1e-3
