"""A chain of tiny runs: InstructGPT's three steps in one file, stopped by a ranking, refused when changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import writing
from tunewright.chain import Done, Outcome, Ranked, Waiting, is_chain, load_chain, run_chain
from tunewright.data.judgements import Judgements
from tunewright.errors import RecipeError, UsageError
from tunewright.progress import silent

TINY = {"threads": 1, "precision": "fp32", "device": "cpu", "learning_rate": 1e-2}
QUICK = {"bootstrap_samples": 100, "retain": "none"}
WORDS = ("good", "bad", "long", "short", "dull", "bright", "sad", "funny", "slow", "quick")


def chain_file(folder: Path, **changes: Any) -> Path:
    """sft -> rank -> reward -> ppo."""
    prompts = "".join(json.dumps({"film": f"a {word} film"}) + "\n" for word in WORDS)
    (folder / "prompts.jsonl").write_text(prompts, encoding="utf-8")
    written = {**QUICK, "max_new_tokens": 4, "generate_rows": 3}
    links: list[dict[str, Any]] = [
        {
            "name": "sft",
            "task": "generate",
            "model": str(writing.base()),
            "data": {"train": str(writing.data_file()), "template": writing.TEMPLATE},
            "training": {**TINY, "max_steps": 3},
            "evaluation": written,
        },
        {"rank": {"models": ["run:sft"], "prompts": "prompts.jsonl", "completions": 3, "export": "ranked.jsonl"}},
        {
            "name": "reward",
            "task": "reward",
            "model": "run:sft",
            "data": {"train": "ranked.jsonl", "validation": 0.3},
            "training": {**TINY, "max_steps": 3},
            "evaluation": QUICK,
        },
        {
            "name": "ppo",
            "task": "align",
            "model": "run:sft",
            "data": {"train": "prompts.jsonl", "validation": 0.3},
            "training": {**TINY, "max_steps": 2, "batch_size": 4},
            "reward": {"model": "run:reward"},
            "evaluation": written,
        },
    ]
    for number, change in changes.items():
        links[int(number.removeprefix("link"))] |= change
    path = folder / "instructgpt.yaml"
    path.write_text(json.dumps({"chain": links}), encoding="utf-8")  # JSON is YAML, without aliases
    return path


def judge_all(store: Path, annotator: str = "simulated") -> int:
    """A simulated ranker: short completions first. Only for tests."""
    judged = 0
    with Judgements.open(store, create=False) as judgements:
        for prompt in judgements.prompts():
            there = judgements.completions(prompt.id)
            if len(there) < 2:
                continue
            ranking = [[one.id] for one in sorted(there, key=lambda one: (len(one.text), one.id))]
            judgements.record(prompt.id, annotator, [one.id for one in there], ranking, seconds=1.0)
            judged += 1
    return judged


def outcomes(path: Path, runs: Path) -> list[Outcome]:
    return list(run_chain(load_chain(path), runs, silent))


def test_three_steps_with_people_between(tmp_path):
    path, runs = chain_file(tmp_path), tmp_path / "runs"
    first = outcomes(path, runs)
    assert [type(one) for one in first] == [Done, Waiting]
    assert isinstance(first[1], Waiting) and first[1].judged == 0 and first[1].wanted > 0
    assert judge_all(tmp_path / "judgements.db") == first[1].wanted

    rest = outcomes(path, runs)
    assert [type(one) for one in rest] == [Done, Ranked, Done, Done]
    sft, ranked, reward, ppo = rest
    assert isinstance(sft, Done) and not sft.now, "a finished link isn't run again"
    assert isinstance(ranked, Ranked) and ranked.comparisons == first[1].wanted
    assert isinstance(reward, Done) and reward.run.summary["task"] == "reward" and reward.now
    assert isinstance(ppo, Done) and ppo.run.summary["state"] == "succeeded"
    assert ppo.run.summary["model"]["name"] == "run:sft"
    assert {p.name for p in runs.iterdir()} == {"instructgpt"}, "its runs lie in a folder of their own"

    again = outcomes(path, runs)
    assert [one.now for one in again if isinstance(one, Done)] == [False, False, False]


def test_a_changed_link_is_refused(tmp_path):
    runs = tmp_path / "runs"
    outcomes(chain_file(tmp_path), runs)
    with pytest.raises(UsageError, match='"training" is not what this link was run with'):
        outcomes(chain_file(tmp_path, link0={"training": {**TINY, "max_steps": 4}}), runs)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("chain: []", "expected a list of recipes"),
        ("chain: [{task: generate, data: {train: x.jsonl}}]", 'has no "name"'),
        ("chain: [{name: a, data: {train: x}}, {name: a, data: {train: x}}]", 'two links are called "a"'),
        ("chain: [{rank: {models: [x], prompts: p, completion: 3}}]", '"completion" is not a setting'),
        ("chain: [{rank: {models: [x], prompts: p}, name: r}]", "holds nothing beside rank"),
        ("model: minilm\nchain: [{name: a, data: {train: x}}]", '"model" stands beside chain'),
        ("chain: [{name: a, dat: {train: x}}]", '"dat" is not a setting'),
    ],
)
def test_mistakes_are_one_line(tmp_path, text: str, says: str):
    path = tmp_path / "chain.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=says) as raised:
        load_chain(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_what_is_a_chain(tmp_path):
    (tmp_path / "recipe.yaml").write_text("data: {train: x.jsonl}", encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("{", encoding="utf-8")
    assert is_chain(chain_file(tmp_path))
    assert not is_chain(tmp_path / "recipe.yaml") and not is_chain(tmp_path / "broken.yaml")
