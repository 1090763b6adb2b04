"""Every setting of a recipe does something: change it, and something other than a copy of the recipe changes.

The list of settings comes from the recipe's classes, so a new one without an entry here fails. Each entry is the
smallest pair of runs that shows the effect, where it must show, and what it must leave alone.
"""

from __future__ import annotations

import json
import tempfile
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import load_file

from tests import tiny, whole, writing
from tunewright.errors import DivergedError, MachineError
from tunewright.recipe import Recipe
from tunewright.runs import Run


def settings_of(part: type[BaseModel] = Recipe, under: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and declaration of every setting."""
    for name, declared in part.model_fields.items():
        if isinstance(declared.annotation, type) and issubclass(declared.annotation, BaseModel):
            yield from settings_of(declared.annotation, f"{under}{name}.")
        else:
            yield under + name, declared


SETTINGS = dict(settings_of())

# ---- data and models to choose from ----


def rows(n: int, seed: int) -> list[dict[str, Any]]:
    """Reviews with a second text, more labels, three texts that come twice, and classes of 5 to 3."""
    made = tiny.sentences(2 * n, seed)
    positive, negative = ([row for row in made if row["label"] == name] for name in ("positive", "negative"))
    mixed = [(positive if i % 8 < 5 else negative).pop() for i in range(n)]
    mixed[-6:-3] = [dict(row) for row in mixed[:3]]
    for i, row in enumerate(mixed):
        topics = [name for name, there in (("long", len(row["text"]) > 60), ("odd", i % 2)) if there]
        row |= {"headline": " ".join(row["text"].split()[::-2]), "stars": 1 + i % 3, "topics": topics}
    return mixed


@cache
def data_file(seed: int = 0, n: int = 32) -> str:
    path = whole.scratch() / f"fields-{seed}-{n}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(n, seed)), encoding="utf-8")
    return str(path)


@cache
def base(kind: str = "bert", layers: int = 2) -> str:
    return str(tiny.save(kind, whole.scratch() / f"fields-{kind}-{layers}", layers=layers))


def reference() -> dict[str, Any]:
    """The run that each other one is compared with: 6 steps in 2 epochs, fp32, one thread."""
    return {
        "model": base(),
        "name": "fields",
        "data.train": data_file(),
        "data.validation": 0.25,
        "data.text": "text",
        "data.label": "label",
        "data.max_length": 16,
        "trainable.rank": 4,
        "training.epochs": 2.0,
        "training.batch_size": 8,
        "training.learning_rate": 1e-2,
        "training.precision": "fp32",
        "training.device": "cpu",
        "training.threads": 1,
        "evaluation.keep": "last",
        "evaluation.bootstrap_samples": 100,
    }


# ---- one run, and what there is to see of it ----


@dataclass
class Seen:
    """What a run left and did, without copies of its recipe and without times."""

    weights: Mapping[str, bytes]
    predictions: list[Any]
    curve: list[Any]  # metrics.jsonl
    samples: list[Any]
    judgement: Any  # evaluation.json
    best: Any  # step and value
    before: Any
    forgetting: Any
    checkpoints: list[str]
    id: str
    tokens: int  # of both parts
    rows: int  # to train on
    classes: list[str]
    threads: int  # while it computed
    micro_batches: list[int]  # tokens of each
    order: list[list[int]]  # rows of each step
    device: str  # where it computed
    model_commit: str | None
    data_commit: str | None


@cache
def seen(frozen: tuple[tuple[str, str], ...]) -> Seen:
    """Run a recipe, once for all that ask."""
    from tunewright import recipe_files
    from tunewright.pipeline import fine_tune

    recipe = recipe_files.build_recipe({}, [f"{key}={value}" for key, value in frozen])
    watching = Watching()
    with watching:
        # A folder of its own: a second run of one name in the same minute would be called another.
        run = fine_tune(recipe, runs=Path(tempfile.mkdtemp(dir=whole.scratch())))
    return _look(run, watching)


class Watching:
    """What only shows while a run computes."""

    def __init__(self) -> None:
        self.threads, self.device = 0, ""
        self.micro_batches: list[int] = []
        self.order: list[list[int]] = []

    def __enter__(self) -> None:
        from tunewright.learning import gradients

        self.patch = pytest.MonkeyPatch()
        real = gradients.micro_batches

        def micro_batches(step: Any, lengths: Any, max_tokens: int, **rest: Any) -> Any:
            parts = real(step, lengths, max_tokens, **rest)
            self.threads = torch.get_num_threads()
            self.order.append(step.tolist())
            self.micro_batches += [int(lengths[part].sum()) for part in parts]
            return parts

        def collate(dataset: Any, part: Any, device: Any) -> Any:
            batch = collated(dataset, part, device)
            self.device = batch.texts.device.type
            return batch

        collated = gradients.collate
        self.patch.setattr(gradients, "micro_batches", micro_batches)
        self.patch.setattr(gradients, "collate", collate)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


def _look(run: Run, watching: Watching) -> Seen:
    folder, summary = run.folder, json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    return Seen(
        weights={
            f"{file.name}/{name}": tensor.numpy().tobytes() + str(tuple(tensor.shape)).encode()
            for file in sorted((folder / "model").glob("*.safetensors"))
            for name, tensor in load_file(file).items()
        },
        predictions=[row | {"row": None} for row in whole.lines(folder, "predictions/validation.jsonl")],
        curve=whole.lines(folder, "metrics.jsonl"),
        samples=whole.lines(folder, "samples.jsonl") if (folder / "samples.jsonl").exists() else [],
        judgement=json.loads((folder / "evaluation.json").read_text(encoding="utf-8")),
        best={key: summary["best"][key] for key in ("step", "value")},
        before=summary["comparison"] and summary["comparison"]["before"],
        forgetting=summary.get("forgetting"),
        checkpoints=sorted(path.name for path in (folder / "checkpoints").iterdir()),
        id=summary["id"].split("-", 2)[2],
        tokens=summary["data"]["train_tokens"] + summary["data"]["validation_tokens"],
        rows=summary["data"]["train_rows"],
        classes=summary["data"]["labels"],
        threads=watching.threads,
        micro_batches=watching.micro_batches,
        order=watching.order,
        device=watching.device,
        model_commit=summary["model"]["revision"],
        data_commit=summary["data"]["revision"],
    )


def run_of(**settings: Any) -> Seen:
    return seen(tuple((key, json.dumps(value)) for key, value in sorted((reference() | settings).items())))


# ---- one entry per setting ----


@dataclass(frozen=True)
class Case:
    """Changing the setting to `value` must change each of `shows`, and none of `spares`."""

    value: Any | Callable[[], Any]
    shows: str = "weights predictions"
    spares: str = ""
    under: Mapping[str, Any] = field(default_factory=dict)  # settings of both runs
    without: tuple[str, ...] = ()  # settings of the reference that would be in the way

    def pair(self, path: str) -> tuple[Seen, Seen]:
        given = dict(self.under) | dict.fromkeys(self.without, "auto")
        value = self.value() if callable(self.value) else self.value
        return run_of(**given), run_of(**(given | {path: value}))


LEARNED = "weights predictions curve"
FULL = {"trainable.method": "full", "trainable.rank": "auto"}


@cache
def written_file() -> str:
    """Prompts with a completion, another that could be learnt as well, and two accepted answers."""
    path = whole.scratch() / "fields-written.jsonl"
    made = [
        {"prompt": row["film"], "completion": row["verdict"], "reply": f"a {row['verdict']} film",
         "accepted": [row["verdict"], "really"]}
        for row in writing.rows(24)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return str(path)


WRITING: dict[str, Any] = {
    "task": "generate",
    "model": str(writing.base()),
    "data.train": written_file(),
    "data.validation": written_file(),
    "data.text": "auto",
    "data.label": "auto",
    "data.max_length": 32,
    "evaluation.prompts": [],
    "evaluation.max_new_tokens": 4,
    "evaluation.generate_rows": 4,
    "evaluation.retain": "none",
}


@cache
def prompts_file() -> str:
    """Prompts without completions."""
    path = whole.scratch() / "fields-prompts.jsonl"
    words = [f"{a} {b}" for a in ("a", "the", "this") for b in ("good film", "bad film", "long story")]
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in words), encoding="utf-8")
    return str(path)


@cache
def comparisons_file() -> str:
    """Two completions of each prompt, and by how much one is better."""
    path = whole.scratch() / "fields-comparisons.jsonl"
    rows = [
        {"prompt": f"the film {i} was ", "chosen": f"good {i}", "rejected": f"bad and long {i % 3}", "by": 1 + i % 3}
        for i in range(16)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


ALIGNING: dict[str, Any] = {
    "task": "align",
    "model": str(writing.base()),
    "data.train": prompts_file(),
    "data.validation": 0.3,
    "data.text": "auto",
    "data.label": "auto",
    "training.epochs": "auto",
    "training.max_steps": 2,
    "reward": {"rules": [{"regex": "a"}]},
    "evaluation.max_new_tokens": 4,
    "evaluation.generate_rows": 2,
    "evaluation.retain": "none",
}
COMPARING: dict[str, Any] = {
    "task": "reward",
    "model": str(writing.base()),
    "data.train": comparisons_file(),
    "data.text": "auto",
    "data.label": "auto",
    "data.max_length": 32,
}
PREFERRING: dict[str, Any] = COMPARING | {
    "task": "align",
    "align.method": "dpo",
    "evaluation.max_new_tokens": 4,
    "evaluation.generate_rows": 2,
    "evaluation.retain": "none",
}
CASES: dict[str, Case] = {
    "model": Case(lambda: base("distilbert"), LEARNED),
    "name": Case("other", "id", spares=LEARNED),
    "data.train": Case(lambda: data_file(1), f"{LEARNED} tokens"),
    "data.validation": Case(lambda: data_file(2, 12), "predictions rows curve"),
    "data.text": Case("headline", f"{LEARNED} tokens"),
    "data.label": Case("stars", f"{LEARNED} classes"),
    "data.labels": Case({"positive": "Good", "negative": "Bad"}, "predictions classes judgement"),
    "data.max_length": Case(8, f"{LEARNED} tokens"),
    "data.truncate": Case("right", LEARNED, spares="tokens rows", under={"data.max_length": 8}),
    "data.duplicates": Case("drop", f"{LEARNED} rows"),
    "trainable.method": Case("head", LEARNED, under={"trainable.rank": "auto"}),
    "trainable.rank": Case(2, LEARNED, spares="order"),
    "trainable.alpha": Case(64.0, LEARNED, spares="order"),
    "trainable.dropout": Case(0.5, LEARNED, spares="order"),
    "trainable.targets": Case(["query"], LEARNED, spares="order"),
    "trainable.layers": Case("last 1", LEARNED, spares="order"),
    "training.epochs": Case(1.0, f"{LEARNED} order"),
    "training.max_steps": Case(2, f"{LEARNED} order", without=("training.epochs",)),
    "training.batch_size": Case(4, f"{LEARNED} order"),
    "training.micro_batch_tokens": Case(32, "micro_batches", spares="order"),
    "training.learning_rate": Case(1e-3, LEARNED, spares="order"),
    "training.schedule": Case("cosine", LEARNED, spares="order"),
    "training.warmup_fraction": Case(0.5, LEARNED, spares="order"),
    "training.weight_decay": Case(0.5, LEARNED, spares="order"),
    "training.max_grad_norm": Case(0.01, LEARNED, spares="order"),
    "training.class_weights": Case("balanced", LEARNED, spares="order"),
    "training.label_smoothing": Case(0.2, LEARNED, spares="order"),
    "training.base_dropout": Case(0.5, LEARNED, spares="order"),
    "training.early_stopping": Case(1, f"{LEARNED} order", under={"evaluation.every": 1}),
    "training.precision": Case("bf16", LEARNED, spares="order"),
    "training.threads": Case(2, "threads", spares="order"),
    "training.seed": Case(7, f"{LEARNED} order"),
    "training.checkpoint_every": Case(1, "checkpoints", spares=LEARNED),
    "training.keep_checkpoints": Case(3, "checkpoints", spares=LEARNED, under={"training.checkpoint_every": 1}),
    "evaluation.every": Case(2, "curve", spares="weights order predictions"),
    "evaluation.keep": Case("best", "weights predictions judgement", spares="curve order"),
    "evaluation.metric": Case(
        "loss", "weights predictions best", spares="order curve", under={"evaluation.keep": "best"}
    ),
    "evaluation.before": Case(False, "curve before", spares="weights order"),
    "evaluation.prompts": Case(["a really good film"], "samples", spares=f"{LEARNED} judgement"),
    "evaluation.bootstrap_samples": Case(200, "judgement", spares=f"{LEARNED} best"),
    "evaluation.retain": Case("general", "forgetting", spares=f"{LEARNED} best"),
    "evaluation.generate_rows": Case(2, "predictions judgement", spares="weights order", under=WRITING),
    "evaluation.max_new_tokens": Case(1, "predictions samples", spares="weights order", under=WRITING),
    "data.template": Case("the {prompt} was {completion}", f"{LEARNED} tokens", spares="order", under=WRITING),
    "data.completion": Case("reply", f"{LEARNED} tokens", under=WRITING),
    "data.references": Case("accepted", "predictions", spares="weights order", under=WRITING),
    "data.learn": Case("all", "weights curve", spares="order tokens", under=WRITING),
    "data.margin": Case("by", LEARNED, spares="order tokens", under=COMPARING),
    "training.centring": Case(1.0, LEARNED, spares="order tokens", under=COMPARING),
    "reward": Case({"rules": [{"regex": "e"}]}, LEARNED, spares="tokens", under=ALIGNING),
    "evaluation.judge": Case({"rules": [{"regex": "o"}]}, "judgement curve", spares="weights order", under=ALIGNING),
    "align.method": Case("grpo", LEARNED, under=ALIGNING),
    "align.beta": Case(1.0, LEARNED, spares="order tokens", under=PREFERRING),
    "align.group_size": Case(2, LEARNED, under=ALIGNING | {"align.method": "grpo"}),
    "align.temperature": Case(0.5, LEARNED, under=ALIGNING),
    "align.ppo_epochs": Case(1, f"{LEARNED} order", under=ALIGNING),
    "align.minibatches": Case(1, f"{LEARNED} order", under=ALIGNING),
    "align.kl_coef": Case(5.0, LEARNED, under=ALIGNING),
    "align.kl_target": Case(1e-3, LEARNED, under=ALIGNING),
    "align.clip_range": Case(1e-4, LEARNED, under=ALIGNING),
    "align.value_clip_range": Case(1e-3, LEARNED, under=ALIGNING),
    "align.value_coef": Case(0.0, LEARNED, under=ALIGNING),
    "align.gamma": Case(0.5, LEARNED, under=ALIGNING),
    "align.gae_lambda": Case(0.0, LEARNED, under=ALIGNING),
    "align.whiten_rewards": Case(True, LEARNED, under=ALIGNING),
    "align.eos_penalty": Case(1.0, LEARNED, under=ALIGNING),
    "align.ptx": Case("general", LEARNED, under=ALIGNING),
    "align.ptx_coef": Case(0.9, LEARNED, under=ALIGNING | {"align.ptx": "general"}),
}
# Each of these has a test of its own: below, of `data.empty` in test_write.
ELSEWHERE = {"task", "data.mask", "revision", "data.revision", "training.device", "align.max_kl", "data.empty"}


def test_every_setting_has_an_entry():
    assert set(CASES) | ELSEWHERE == set(SETTINGS)


@pytest.mark.parametrize("path", CASES)
def test_a_setting_does_something(path: str):
    case = CASES[path]
    before, after = case.pair(path)
    for name in case.shows.split():
        assert getattr(before, name) != getattr(after, name), f"{path} doesn't change {name}"
    for name in case.spares.split():
        assert getattr(before, name) == getattr(after, name), f"{path} changes {name}"


def test_changing_nothing_changes_nothing():
    """Without this, the tests above could see noise."""
    first = run_of()
    seen.cache_clear()
    again = run_of()
    for part in fields(Seen):
        assert getattr(first, part.name) == getattr(again, part.name), part.name


# ---- settings that choose from a list: no two choices are the same thing under two names ----

CHOICES: dict[str, tuple[list[Any], Mapping[str, Any]]] = {
    "data.truncate": (["left", "right"], {"data.max_length": 8}),
    "data.duplicates": (["keep", "drop"], {}),
    "trainable.method": (["full", "head", "lora"], {"trainable.rank": "auto"}),
    "training.schedule": (["linear", "cosine", "constant"], {}),
    "training.class_weights": ([None, "balanced", {"positive": 3.0}], {}),
    "training.precision": (["fp32", "bf16"], {}),
    "evaluation.keep": (["best", "last"], {}),
    "data.learn": (["completion", "all"], WRITING),  # assistant: of conversations, in test_segments
}


def choices(annotation: Any) -> set[Any]:
    """Words that a setting may be, but for `auto`."""
    if typing.get_origin(annotation) is typing.Literal:
        return {word for word in typing.get_args(annotation) if word != "auto" and isinstance(word, str)}
    return set().union(*map(choices, typing.get_args(annotation)))


def test_every_list_of_words_is_looked_at():
    """A new word for a setting needs a look as well."""
    several = {path: choices(declared.annotation) for path, declared in SETTINGS.items()}
    listed = {path: {word for word in words if isinstance(word, str)} for path, (words, _) in CHOICES.items()}
    listed["data.learn"].add("assistant")
    elsewhere = {"task", "data.mask", "data.empty", "training.device", "evaluation.metric", "align.method"}
    for path, words in several.items():
        if path in listed:
            assert words == listed[path], path
        else:  # a single word beside numbers or names is a CASE already
            assert len(words) < 2 or path in elsewhere, path


@pytest.mark.parametrize("path", CHOICES)
def test_no_two_choices_are_the_same(path: str):
    words, under = CHOICES[path]
    weights = [run_of(**under, **{path: word}).weights for word in words]
    for i, one in enumerate(weights):
        assert one not in weights[:i], f"{path}: {words[i]}"


METRICS = choices(SETTINGS["evaluation.metric"].annotation)
OF_NUMBERS = {"rmse", "mae", "pearson", "spearman"}
OF_TEXT = {"perplexity", "token_accuracy", "exact_match", "f1", "rouge_1", "rouge_2", "rouge_l", "bleu", "chrf"}
LOWER = {"loss", "ece", "rmse", "mae", "perplexity"}


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_each_metric_decides_by_its_own_value(metric: str):
    """The best evaluation is the first with the best value of this metric, in the direction that is better."""
    under: dict[str, Any] = {"evaluation.every": 1, "evaluation.before": False, "training.learning_rate": 0.03}
    if metric in OF_NUMBERS:
        under |= {"data.label": "stars", "data.labels": "number"}
    elif metric == "micro_f1":
        under |= {"data.label": "topics"}
    elif metric in OF_TEXT:
        under |= WRITING
    elif metric == "margin":
        under |= COMPARING
    elif metric in ("reward", "score"):
        under |= ALIGNING
    run = run_of(**under, **{"evaluation.metric": metric, "evaluation.keep": "best"})
    scored = [(row[f"validation/{metric}"], row["step"]) for row in run.curve if f"validation/{metric}" in row]
    assert len(scored) >= 2
    best = min(scored, key=lambda row: (row[0] if metric in LOWER else -row[0], row[1]))
    assert run.best == {"step": best[1], "value": best[0]}


# ---- what can't be shown by a pair of runs here ----


def test_each_task_learns_something_else():
    """The same rows, read three ways; comparisons and prompts by two tasks more."""
    assert choices(SETTINGS["task"].annotation) == {"classify", "generate", "continue", "reward", "align"}
    plain = {"task": "continue", "data.text": "prompt", "evaluation.generate_rows": "auto"}
    judged = [run_of(**WRITING).judgement, run_of(**WRITING | plain).judgement, run_of().judgement]
    assert ["exact_match" in one["metrics"] for one in judged] == [True, False, False]
    assert ["perplexity" in one["metrics"] for one in judged] == [True, True, False]
    compared, practised = run_of(**COMPARING).judgement, run_of(**ALIGNING).judgement
    assert "accuracy" in compared["metrics"] and "score" in practised["metrics"]


def test_each_method_of_alignment_learns_something_else():
    assert choices(SETTINGS["align.method"].annotation) == {"ppo", "grpo", "dpo"}
    ppo, grpo, dpo = run_of(**ALIGNING), run_of(**ALIGNING, **{"align.method": "grpo"}), run_of(**PREFERRING)
    assert len({repr(sorted(one.weights.items())) for one in (ppo, grpo, dpo)}) == 3
    assert any("ppo/value_loss" in row for row in ppo.curve) and not any("ppo/value_loss" in row for row in grpo.curve)
    assert "accuracy" in dpo.judgement["metrics"] and "score" not in dpo.judgement["metrics"]


def test_max_kl():
    """A policy that has run away is stopped, in one line that says what to do."""
    with pytest.raises(DivergedError, match=r"align.max_kl is 1e-09"):
        run_of(**ALIGNING | {"align.max_kl": 1e-9, "align.kl_coef": 0.0, "training.max_steps": 8})


def test_mask():
    """Whole words are chosen by their first tokens."""
    from tunewright.models.finding import BaseModel
    from tunewright.models.writers import load_writer
    from tunewright.recipe_files import build_recipe
    from tunewright.tasks.ways import way_of

    assert choices(SETTINGS["data.mask"].annotation) == {"tokens", "words"}
    loaded = load_writer(BaseModel("base", base(), "folder"), "masked", seed=0)
    ways = {
        mask: way_of(loaded.model, loaded.tokenizer, build_recipe(
            {"task": "continue", "data": {"train": "a.txt", "mask": mask}}
        ))
        for mask in ("tokens", "words")
    }  # fmt: skip
    assert ways["tokens"].masking.starts is None and ways["words"].masking.starts is not None


def test_device():
    """Each word is used or refused; never quietly another."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    assert choices(SETTINGS["training.device"].annotation) == set(there)
    for name, available in there.items():
        if available:
            assert run_of(**{"training.device": name}).device == name
        else:
            with pytest.raises(MachineError, match=f'device "{name}" is not available'):
                run_of(**{"training.device": name})


def test_revision_of_the_model(monkeypatch):
    """The Hub's two revisions hold different weights: the recipe's word decides which are trained."""
    import huggingface_hub

    folders = {"a" * 40: base(), "b" * 40: base("bert", 3)}

    def model_info(self: Any, repo_id: str, *, revision: str | None = None, **rest: Any) -> Any:
        return SimpleNamespace(sha={"v1": "a", "v2": "b"}[str(revision)] * 40, siblings=[])

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo_id, *, revision, **rest: folders[revision])
    one, two = (run_of(model="owner/films", revision=name) for name in ("v1", "v2"))
    assert one.weights.keys() != two.weights.keys()  # two layers, and three
    assert (one.model_commit, two.model_commit) == ("a" * 40, "b" * 40)


def test_revision_of_the_data(monkeypatch):
    """Likewise for a dataset."""
    import datasets
    import huggingface_hub

    files = {"a" * 40: rows(32, seed=0), "b" * 40: rows(32, seed=1)}

    def dataset_info(self: Any, repo_id: str, *, revision: str | None = None, **rest: Any) -> Any:
        return SimpleNamespace(sha={"v1": "a", "v2": "b"}[str(revision)] * 40)

    def load_dataset(name: str, configuration: str | None, *, revision: str) -> Any:
        return datasets.DatasetDict(train=datasets.Dataset.from_list(files[revision]))

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    one, two = (run_of(**{"data.train": "owner/films", "data.revision": name}) for name in ("v1", "v2"))
    assert one.weights != two.weights
    assert (one.data_commit, two.data_commit) == ("a" * 40, "b" * 40)
