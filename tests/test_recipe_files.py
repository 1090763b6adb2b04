"""Recipes as files: what is written is what is read; every mistake is one line that names the nearest setting."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from tests import whole
from tests.json_schema import problems
from tunewright.errors import RecipeError
from tunewright.recipe import Recipe
from tunewright.recipe_align import RewardRecipe
from tunewright.recipe_files import build_recipe, dump, field_docs, load_recipe, read_yaml, schema

EXAMPLES = sorted((whole.ROOT / "examples").glob("*.yaml"))
DATA = {"data": {"train": "a.jsonl"}}

# A legal value of every setting, none of them the default.
VALUES = {
    "task": ["classify", "generate", "continue", "reward"],
    "model": ["owner/name", "run:x", "./folder"],
    "revision": ["main"],
    "name": ["a-1"],
    "data.train": ["b.csv.gz", "owner/data"],
    "data.validation": ["v.jsonl", 0.2, "auto"],
    "data.revision": ["abc"],
    "data.text": ["review"],
    "data.label": ["stars"],
    "data.labels": [{"0": "No", "1": "Yes"}, ["b", "a"], "number", "auto"],
    "data.max_length": [32, "auto"],
    "data.truncate": ["right"],
    "data.duplicates": ["drop"],
    "trainable.method": ["full", "head"],
    "trainable.rank": [4, "auto"],
    "trainable.alpha": [32.0, 0.5, "auto"],
    "trainable.dropout": [0.01],
    "trainable.targets": [["q_lin", "v_lin"], "all-linear"],
    "trainable.layers": ["last 2"],
    "training.epochs": [3.0, 0.25],
    "training.max_steps": [7],
    "training.batch_size": [4],
    "training.micro_batch_tokens": [512],
    "training.learning_rate": [1e-4, 3e-5, "auto"],
    "training.schedule": ["cosine", "constant"],
    "training.warmup_fraction": [0.0, 0.5],
    "training.weight_decay": [0.0],
    "training.max_grad_norm": [0.0],
    "training.class_weights": ["balanced", {"yes": 2.0}, {"1": 0.5}],
    "training.label_smoothing": [0.1],
    "training.base_dropout": [0.1, 0.0],
    "training.early_stopping": [2],
    "training.precision": ["fp32", "bf16"],
    "training.device": ["cpu", "cuda", "mps"],
    "training.threads": [1],
    "training.seed": [0, 2**32 - 1],
    "training.checkpoint_every": [5],
    "training.keep_checkpoints": [3],
    "evaluation.every": [10],
    "evaluation.keep": ["last"],
    "evaluation.metric": ["macro_f1", "rmse"],
    "evaluation.before": [False],
    "evaluation.prompts": [["It was good.", "A: b # c", "é\n'\"", "- x", "null", "1e-4"]],
    "evaluation.bootstrap_samples": [200],
    "evaluation.retain": ["general", "own.txt", "none"],
    "evaluation.generate_rows": [0, 12],
    "evaluation.max_new_tokens": [40],
    "data.template": ["Q: {question}\n\nA: {answer}", "alpaca"],
    "data.completion": ["answer"],
    "data.references": ["answers"],
    "data.learn": ["all", "assistant"],
    "data.mask": ["words"],
    "data.empty": ["drop"],
    "data.margin": ["by"],
    "training.centring": [0.01],
    "align.method": ["grpo"],
    "align.beta": [0.5],
    "align.group_size": [8],
    "align.temperature": [0.7],
    "align.ppo_epochs": [4],
    "align.minibatches": [1],
    "align.kl_coef": [0.0, 0.2],
    "align.kl_target": [6.0],
    "align.max_kl": [50.0],
    "align.clip_range": [0.1],
    "align.value_clip_range": [0.5],
    "align.value_coef": [0.0],
    "align.gamma": [0.99],
    "align.gae_lambda": [1.0, 0.0],
    "align.whiten_rewards": [True],
    "align.eos_penalty": [1.0],
    "align.ptx": ["general", "text.txt"],
    "align.ptx_coef": [0.5],
    "reward.model": ["run:ranked"],
    "reward.classifier": ["run:reviews"],
    "reward.label": ["good: yes"],
    "reward.rules.regex": ["^a # b"],
    "reward.rules.exact": ["answer"],
    "reward.rules.min_words": [3],
    "reward.rules.max_words": [30],
    "reward.rules.score": [-2.0],
    "reward.weight": [0.5],
    "reward.reads": ["completion"],
    "reward.value": ["probability"],
    "evaluation.judge": [RewardRecipe(classifier="run:judge", label="yes")],
}
TASKS = (
    {"evaluation.generate_rows": "generate", "evaluation.max_new_tokens": "generate", "data.mask": "continue"}
    | {f"data.{name}": "generate" for name in ("template", "completion", "references", "learn", "empty")}
    | {"data.margin": "reward", "training.centring": "reward", "evaluation.judge": "align"}
)
RULE = 'reward={"rules": {"max_words": 9}}'
BESIDE = {  # what a value needs beside it, or can't be without
    "align.beta": ["align.method=dpo"],
    "align.group_size": [RULE, "align.method=grpo"],
    "reward.classifier": ["reward.label=good"],
    "reward.label": ["reward.classifier=run:reviews"],
    "reward.rules.score": ["reward.rules.min_words=2"],
    "reward.weight": ["reward.model=run:ranked"],
    "reward.reads": ["reward.model=run:ranked"],
    "reward.value": ["reward.model=run:ranked"],
    "evaluation.judge": [RULE],
}
CASES = [(path, value) for path, values in VALUES.items() for value in values]


def of(made: Recipe, path: str):
    found = made
    for name in path.split("."):
        found = getattr(found[0] if isinstance(found, list) else found, name)
    return found


def beside(path: str) -> list[str]:
    """Overrides that make a recipe in which this setting may stand."""
    section = path.partition(".")[0]
    task = TASKS.get(path, "align" if section in ("align", "reward") else "classify")
    needs = [] if path.startswith("reward") else [RULE] if section == "align" else []
    return [f"task={task}", *BESIDE.get(path, needs)]


def test_every_setting_has_a_case_here():
    assert VALUES.keys() == {doc.path for doc in field_docs()}


@pytest.mark.parametrize("path, value", CASES, ids=lambda v: str(v)[:30])
def test_every_value_comes_back_from_yaml_and_from_an_override(tmp_path, path, value):
    given = value.model_dump() if isinstance(value, RewardRecipe) else value
    made = build_recipe(DATA, [*(beside(path) if path != "task" else []), f"{path}={json.dumps(given)}"])
    assert of(made, path) == value
    file = tmp_path / "recipe.yaml"
    file.write_text(dump(made, {path: "given: a # b"}), encoding="utf-8")
    assert load_recipe(file) == made
    assert problems(yaml.safe_load(dump(made)), schema()) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_come_back(path, tmp_path):
    made = load_recipe(path)
    file = tmp_path / "again.yaml"
    file.write_text(dump(made), encoding="utf-8")
    assert load_recipe(file) == made
    as_json = json.loads(json.dumps(read_yaml(path)))  # YAML keys may be numbers, JSON's are text
    assert problems(as_json, schema()) == []


def test_the_articles_recipe_reads_as_written():
    made = load_recipe(whole.ROOT / "examples" / "imdb_distilbert_lora.yaml")
    assert made.training.learning_rate == 1e-3  # YAML 1.1 would read a text
    assert made.data.labels == {"0": "Negative", "1": "Positive"}
    assert (made.trainable.rank, made.trainable.alpha, made.trainable.targets) == (4, 32, ["q_lin"])


BAD = [
    ({}, '"data" is missing'),
    ({"data": {}}, '"data.train" is missing'),
    ({**DATA, "trainin": {}}, '"trainin" is not a setting.'),
    ({**DATA, "training": {"learning_rat": 1}}, 'not a setting. Did you mean "training.learning_rate"?'),
    ({**DATA, "training": {"lr": 1}}, 'Did you mean "training.learning_rate"?'),
    ({**DATA, "lora_r": 4}, 'Did you mean "trainable.rank"?'),
    ({**DATA, "learning_rate": 1}, 'Did you mean "training.learning_rate"?'),
    ({**DATA, "trainable": {"method": "LoRA"}}, "\"trainable.method\" is 'LoRA'; expected full, head or lora"),
    ({**DATA, "training": {"batch_size": 0}}, '"training.batch_size" is 0; expected more than 0, or auto'),
    ({**DATA, "training": {"batch_size": "many"}}, "\"training.batch_size\" is 'many'; "),
    ({**DATA, "training": {"seed": 1.5}}, '"training.seed" is 1.5; '),
    ({**DATA, "training": {"epochs": 1, "max_steps": 1}}, "give one of them, not both"),
    ({**DATA, "training": []}, '"training" is []; '),
    ({**DATA, "trainable": {"layers": "first 2"}}, 'expected "all" or "last N" with N at least 1'),
    ({**DATA, "trainable": {"targets": [1]}}, '"trainable.targets" is '),
    ({**DATA, "name": "a b"}, "expected letters, digits"),
    ({"data": {"train": "a", "validation": 1.5}}, '"data.validation" is 1.5; '),
    ({"data": "a.jsonl"}, "\"data\" is 'a.jsonl'; "),
    (
        {**DATA, "task": "clasify"},
        "\"task\" is 'clasify'; expected classify, generate, continue, reward or align. Did you mean",
    ),
    ({**DATA, "training": {"class_weights": {"a": -1}}}, '"training.class_weights" is {a: -1}; '),
    ({**DATA, "evaluation": {"prompts": "one"}}, "\"evaluation.prompts\" is 'one'; "),
]


# Rules between settings or inside a text, which the schema doesn't say.
ONLY_OURS = (
    "give one of them, not both",
    'expected "all" or "last N" with N at least 1',
    "expected letters, digits",
)


@pytest.mark.parametrize("values, words", BAD, ids=lambda v: v if isinstance(v, str) else "")
def test_every_mistake_is_one_line_that_names_the_setting(values, words):
    with pytest.raises(RecipeError) as caught:
        build_recipe(values, where="recipe.yaml")
    error = caught.value
    assert words in str(error), str(error)
    assert str(error).startswith("recipe.yaml: ") and "\n" not in error.line() and len(error.line()) < 400
    assert error.exit_code == 2 and error.line().startswith("error[recipe] ")
    assert error.field, error
    if words not in ONLY_OURS:
        assert problems(values, schema())


@pytest.mark.parametrize(
    "override, words",
    [
        ("training.learning_rate", 'has no "="'),
        ("=3", "not a setting"),
        ("learning_rate=1", 'Did you mean "training.learning_rate"?'),
        ("trainable.layer=all", 'Did you mean "trainable.layers"?'),
        ("training={}", '"training" is not a setting'),
        ("training.seed=x", "\"training.seed\" is 'x'"),
        ("training.learning_rate=", "\"training.learning_rate\" is ''"),
    ],
)
def test_a_bad_override_is_one_line(override, words):
    with pytest.raises(RecipeError) as caught:
        build_recipe(DATA, [override])
    assert words in str(caught.value), str(caught.value)


def test_overrides_win_and_the_last_one_wins():
    values = {**DATA, "training": {"seed": 1, "epochs": 2}}
    made = build_recipe(values, ["training.seed=2", "training.seed=3", "data.text=body", "trainable.targets=[q, v]"])
    assert (made.training.seed, made.training.epochs, made.data.text) == (3, 2, "body")
    assert made.trainable.targets == ["q", "v"] and values["training"]["seed"] == 1
    assert build_recipe(DATA, ["training.learning_rate=1e-4"]).training.learning_rate == 1e-4
    assert build_recipe(DATA, ["training.epochs=null", "training.epochs=auto"]).training.epochs == "auto"


FILES = [
    ("a: [1, 2\n", r"recipe.yaml:\d: "),
    ("\tdata: 1\n", "recipe.yaml:1: a tab where YAML wants spaces|cannot start any token"),
    ("data: {train: a}\ndata: {train: b}\n", 'recipe.yaml:2: "data" is given twice'),
    ("x: &a [1]\ny: *a\n", "recipe.yaml:2: aliases"),
    ("data: !!python/object/apply:os.system [echo]\n", "the tag !!python/object/apply:os.system is not read here"),
    ("- a\n- b\n", "expected `key: value` lines"),
    ("", "expected `key: value` lines"),
    ("just words", "expected `key: value` lines"),
    ("data: {train: a}\n? [1]\n: 2\n", "recipe.yaml"),
    ("data: {train: a}\n1: 2\n", '"1" is not a setting'),
    ("data: {train: a}\nname: 2026-01-01\n", '"name" is '),
    ("[" * 5000, "recipe.yaml"),
    ("a: 1\n---\nb: 2\n", "recipe.yaml"),
    ("data: {train: a, {b: 1}: 2}\n", "recipe.yaml"),
    ("data: {train: 2026-99-99}\n", "recipe.yaml"),
    ("data: {train: a}\nname: \x07\n", "recipe.yaml"),
]


@pytest.mark.parametrize("text, words", FILES, ids=range(len(FILES)))
def test_a_broken_file_is_one_line_with_its_place(tmp_path, text, words):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=words) as caught:
        load_recipe(path)
    assert "\n" not in caught.value.line() and str(path) in str(caught.value)


def test_files_that_are_no_recipes(tmp_path):
    (tmp_path / "recipe.yaml").write_text("data: {train: a}")
    with pytest.raises(RecipeError, match=r'no such recipe. Did you mean "recipe.yaml"\?'):
        load_recipe(tmp_path / "recipes.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(RecipeError, match="byte 9 is not UTF-8"):
        load_recipe(tmp_path / "latin.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * (1 << 20) + b"##")
    with pytest.raises(RecipeError, match="a page of YAML"):
        load_recipe(tmp_path / "big.yaml")
    with pytest.raises(RecipeError, match="can't be read"):
        load_recipe(tmp_path)


def test_bytes_that_say_nothing_are_read(tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_bytes("\ufeffdata: {train: a}\r\nname: x\r\n".encode())
    assert load_recipe(path).name == "x"


def test_paths_start_at_the_recipes_folder(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.jsonl").touch()
    recipe = tmp_path / "inner" / "r.yaml"
    recipe.write_text("data: {train: a.jsonl, validation: b.jsonl}")
    monkeypatch.chdir(tmp_path)
    made = load_recipe(recipe)
    assert made.data.train == str(tmp_path / "inner" / "a.jsonl") and made.data.validation == "b.jsonl"
    (tmp_path / "a.jsonl").touch()
    assert load_recipe(recipe).data.train == "a.jsonl"  # where the person stands wins
    assert load_recipe(recipe, ["data.train=c.jsonl"]).data.train == "c.jsonl"


def test_dump_says_where_each_value_came_from():
    text = dump(build_recipe(DATA), {"training.seed": "given", "name": "default"})
    assert "  seed: 42  # given\n" in text and "name: null  # default\n" in text and "task: classify\n" in text


def test_reference_has_words_for_every_setting():
    docs = {doc.path: doc for doc in field_docs()}
    assert all(doc.help.endswith(".") and doc.type for doc in docs.values())
    assert docs["training.learning_rate"].type == "number | auto" and docs["data.train"].default == "required"
    assert docs["training.class_weights"].type == "balanced | {text: number}"
    assert docs["trainable.targets"].type == "list of text | all-linear"


def test_reading_recipes_needs_no_torch():
    code = (
        "import sys, tunewright, tunewright.recipe_files as r; r.build_recipe({'data': {'train': 'a'}}); r.schema();"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'pandas', 'pyarrow', 'numpy'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([whole.PYTHON, "-c", code], env=whole.child_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
