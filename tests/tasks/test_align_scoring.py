"""The scorer of alignment by a reward, on a tiny policy: pairs by the same random numbers, files that can be kept."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny, whole, writing
from tests.learning import small_ppo
from tunewright.data.examples import Row
from tunewright.data.sources import open_data
from tunewright.data.written import recognise
from tunewright.data.written_tokens import RowEncoder
from tunewright.evaluation.record import read_record
from tunewright.evaluation.report import write_report
from tunewright.models.divergence import divergences
from tunewright.models.forward import Forward
from tunewright.models.starting import Reference
from tunewright.recipe_align import RewardRecipe
from tunewright.recipe_files import build_recipe
from tunewright.recording import Recorder
from tunewright.tasks.align_scoring import AlignScorer, HeldOut, _as_json, belief, reward_words, wanted_completions
from tunewright.tasks.rewards import MixedReward

CLASSIFIER = {"classifier": "run:reviews", "label": "positive"}
OTHER = {"classifier": "run:reviews-b", "label": "positive", "value": "probability"}


class LowTokens:
    """A source of scores that is easy to please: the share of tokens below 20, and how often it was asked."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale, self.asked = scale, 0

    def scores(self, prompts: Any, completions: Any) -> np.ndarray:
        self.asked += 1
        return self.scale * small_ppo.low_tokens(prompts, completions)

    def check(self, prompts: Any) -> None: ...


def make(folder: Path, *, judge: dict[str, Any] | None = OTHER, reward: Any = CLASSIFIER, wanted: Any = None,
         shown: Any = None, **settings: Any) -> AlignScorer:  # fmt: skip
    values = {"task": "align", "model": "gemma3-270m", "data": {"train": "prompts.jsonl"}, "reward": reward}
    values |= {"evaluation": {"judge": judge}} if judge else {}
    given = {"evaluation.max_new_tokens": 6, "evaluation.generate_rows": 8, "evaluation.retain": "none",
             "evaluation.bootstrap_samples": 100, "align.temperature": 0.9} | settings  # fmt: skip
    recipe = build_recipe(values, [f"{name}={value}" for name, value in given.items()])
    forward = Forward.checked(small_ppo.model())
    parts: Any = SimpleNamespace(
        recipe=recipe, tokens=None, tokenizer=None, forward=forward, cache=None, runtime=small_ppo.RUNTIME,
        recorder=Recorder(folder, lambda event: None), stop_if_asked=lambda: None,
    )  # fmt: skip
    held_out = HeldOut(
        small_ppo.Prompts.make(), [f"prompts.jsonl:{i + 1}" for i in range(10)], small_ppo.ENDING, shown, wanted
    )
    sources = [MixedReward((LowTokens(scale),), ("low",), (weight,)) for scale, weight in ((3.0, 1.0), (1.0, 1.0))]
    return AlignScorer(held_out, Reference.of(forward), sources[0], sources[1] if judge else None, parts)


@pytest.fixture
def start(tmp_path):
    made = []

    def scorer(**arguments):
        made.append(make(tmp_path / str(len(made)), **arguments))
        return made[-1]

    yield scorer
    for one in made:
        one.parts.recorder.close()


def aligned(scorer):
    """A whole life: before, a change of the weights, after, the end."""
    before = scorer.score(first=True)
    scorer.keep("before")
    small_ppo.moved(scorer.parts.forward.model)
    after = scorer.score(first=False)
    scorer.keep("validation")
    return before, after, scorer.finish()


def test_the_untrained_model_is_where_it_is(start):
    scorer = start()
    found = scorer.score(first=True)
    assert found["kl"] == 0 and found["reward"] == found["score"] and "win_rate" not in found
    assert found["judge"] == pytest.approx(found["score"] / 3) == pytest.approx(found["judge_probability"])
    assert found["probability"] == pytest.approx(np.mean(1 / (1 + np.exp(-scorer.found.completions.score))))


def test_the_same_model_writes_the_same_again_and_wins_nothing(start):
    scorer = start()
    first = scorer.score(first=True)
    scorer.keep("before")
    again = scorer.score(first=False)
    assert again.pop("win_rate") == 0.5 and again.pop("judge_win_rate") == 0.5
    assert again == first
    texts = scorer.found.completions.texts
    assert len(set(texts)) > 1, "sampled, a stream for each prompt"


def test_other_seeds_write_other_texts(start):
    one, other = start(), start(**{"training.seed": 7})
    one.score(first=True), other.score(first=True)
    assert one.found.completions.texts != other.found.completions.texts


def test_each_prompt_has_random_numbers_of_its_own(start):
    scorer = start()
    scorer.held_out = replace(scorer.held_out, prompts=small_ppo.Prompts([[5, 6, 7]] * 8))
    scorer.score(first=True)
    assert len(set(scorer.found.completions.texts)) > 1


def test_the_distance_is_paid_for(start):
    scorer = start(**{"align.kl_coef": 0.5, "align.temperature": 0.5})
    _, after, _ = aligned(scorer)
    assert after["kl"] > 0.01 and after["reward"] == pytest.approx(after["score"] - 0.5 * after["kl"])
    prompts = [scorer.held_out.prompts.ids(i) for i in scorer.numbers]
    said = [one.ids for one in scorer._written(scorer.held_out.prompts, scorer.numbers, scorer.sampling)]
    own = divergences(scorer.parts.forward, scorer.reference, prompts, said, temperature=0.5)
    assert after["kl"] == pytest.approx(own.kl.mean()), "at the temperature that the completions were sampled at"


def test_the_end_of_a_run(start):
    scorer = start()
    before, after, found = aligned(scorer)
    assert found["metrics"] == pytest.approx(after) and found["comparison"]["before"] == pytest.approx(before)
    assert {"score", "kl", "judge", "win_rate", "ended"} <= found["intervals"].keys() <= after.keys()
    described = found["alignment"]
    assert described["method"] == "ppo" and described["prompts"] == 8 and not described["judge_is_reward"]
    assert described["win_rates"]["win_rate"]["rate"] == after["win_rate"]
    assert described["reward"] == ["log-odds of positive by run:reviews"]
    assert found["comparison"]["paired"]["score"]["difference"] == pytest.approx(after["score"] - before["score"])
    assert "fixed" not in found["comparison"]["paired"]["kl"] and found["forgetting"] is None
    rows = whole.lines(scorer.parts.recorder.folder, "predictions/validation.jsonl")
    assert [row["row"] for row in rows] == [f"prompts.jsonl:{i + 1}" for i in range(8)]
    assert np.mean([row["score"] for row in rows]) == pytest.approx(after["score"])
    assert np.mean([row["judge_before"] for row in rows]) == pytest.approx(before["judge"])
    assert {"prompt", "prediction", "before", "stopped", "stopped_before", "kl", "tokens"} <= rows[0].keys()
    assert whole.lines(scorer.parts.recorder.folder, "predictions/prompts.jsonl") == [{"number": i} for i in range(8)]
    json.dumps(found, allow_nan=False)


def test_a_new_process_reads_what_was_kept_to_the_last_bit(start):
    scorer = start()
    *_, found = aligned(scorer)
    scorer.found = None
    assert scorer.finish() == found
    kept, fresh = scorer._kept("validation"), scorer._measured()
    assert kept.stopped == fresh.stopped and kept.completions.texts == fresh.completions.texts
    for name, tensor in kept.tensors().items():
        assert torch.equal(tensor, fresh.tensors()[name])


def test_without_a_before_there_is_nothing_to_compare(start):
    scorer = start()
    small_ppo.moved(scorer.parts.forward.model)
    scorer.score(first=False)
    scorer.keep("validation")
    found = scorer.finish()
    assert found["comparison"] is None and found["alignment"]["win_rates"] == {}
    assert "before" not in whole.lines(scorer.parts.recorder.folder, "predictions/validation.jsonl")[0]


def test_the_transcripts_are_the_likeliest_words(start):
    scorer = start()
    rows = scorer.samples()
    assert len(rows) == 10 and rows == scorer.samples() and {"score", "judge"} <= rows[0].keys()
    ids = torch.tensor([scorer.held_out.prompts.ids(3)])
    model = scorer.parts.forward.model
    out = model.generate(input_ids=ids, max_new_tokens=6, do_sample=False, eos_token_id=2, pad_token_id=0)
    assert rows[3]["prediction"] == small_ppo.text(out[0, ids.shape[1] :].tolist())


def test_the_recipe_s_own_prompts_are_shown_instead(start):
    scorer = start(shown=small_ppo.Prompts([[5, 6], [7]]))
    assert [row["prompt"] for row in scorer.samples()] == ["5 6", "7"]


def test_nobody_judges_where_no_judge_is_named(start):
    scorer = start(judge=None)
    _, after, found = aligned(scorer)
    assert not [name for name in after if name.startswith("judge")] and found["alignment"]["judge"] is None


@pytest.mark.parametrize(
    ("judge", "same"),
    [(CLASSIFIER | {"value": "probability", "reads": "completion"}, True), (OTHER, False), (None, False)],
)
def test_a_judge_that_is_the_reward_is_said_to_be(judge, same, start):
    _, _, found = aligned(start(judge=judge))
    assert found["alignment"]["judge_is_reward"] is same


def test_completions_of_the_data_show_what_is_kept_of_the_task(start):
    """Against plain transformers, before and after."""
    ids = [np.array([5, 6, 7, 21, 2]), np.array([9, 30, 2])]
    wanted: Any = SimpleNamespace(
        lengths=np.array([5, 3]), labels=np.zeros((2, 0), np.float32), tokens=ids.__getitem__,
        is_target=lambda i: np.arange(len(ids[i])) >= (3, 1)[i],
    )  # fmt: skip
    scorer = start(wanted=wanted)
    before, after, found = aligned(scorer)
    model, nats = scorer.parts.forward.model.eval(), 0.0
    for text, start_at in zip(ids, (3, 1), strict=True):
        with torch.no_grad():
            logprobs = model(input_ids=torch.from_numpy(text)[None]).logits[0].log_softmax(-1)
        nats -= sum(float(logprobs[place - 1, text[place]]) for place in range(start_at, len(text)))
    assert (
        after["perplexity"] == pytest.approx(np.exp(nats / 4), rel=1e-4) and before["perplexity"] != after["perplexity"]
    )
    assert json.loads((scorer.parts.recorder.folder / "evaluation.json").read_text())["num_rows"] == 2
    assert (
        found["comparison"]["paired"]["perplexity"]["fixed"] + found["comparison"]["paired"]["perplexity"]["broke"] == 2
    )


def test_the_report_is_made_of_its_files(start):
    scorer = start()
    _, _, found = aligned(scorer)
    recorder = scorer.parts.recorder
    recorder.samples([{"step": 0, "epoch": 0.0, **row} for row in scorer.samples()])
    recorder.metrics({"step": 0, "epoch": 0.0, **{f"validation/{k}": v for k, v in found["metrics"].items()}})
    recorder.update(task="align", state="succeeded", data={"kind": "align"}, **found)
    page = write_report(recorder.folder).read_text()
    assert "Transcripts" in page and "judge&#39;s win rate" in page
    assert read_record(recorder.folder).metrics == pytest.approx(found["metrics"])


# ---- parts ----


def test_beliefs_are_the_classifier_s_among_other_sources():
    rules = RewardRecipe(rules=[{"min_words": 3}], weight=5.0)
    odds, shares = RewardRecipe(**CLASSIFIER, weight=2.0), RewardRecipe(**OTHER)
    scores = np.array([0.0, 2.0])
    assert belief([rules, odds], [np.ones(2), scores]).tolist() == pytest.approx([0.5, 1 / (1 + np.exp(-2.0))])
    assert belief([shares], [scores / 4]).tolist() == [0.0, 0.5]
    assert belief([rules], [scores]) is None and belief([odds, shares], [scores, scores]) is None


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"model": "run:ranked"}, "reward model run:ranked"),
        (OTHER | {"weight": 0.5}, "0.5 × probability of positive by run:reviews-b"),
        ({"rules": [{"regex": "a"}, {"max_words": 9}]}, "2 rules"),
    ],
)
def test_a_reward_in_words(source, words):
    assert reward_words(RewardRecipe(**source)) == words


def test_a_row_that_json_can_t_hold_is_no_reason_to_fail():
    values = {"day": datetime.date(2026, 11, 24), "vector": np.ones(2), "text": "ü"}
    assert _as_json(values) == {"day": "2026-11-24", "vector": [1.0, 1.0], "text": "ü"}


def test_rows_with_completions_are_measured_and_prompts_alone_are_not():
    source = open_data(str(writing.data_file())).train
    rows = list(source.rows())[:5]
    encoder = RowEncoder.of(recognise(source, template=writing.TEMPLATE), tiny.tokenizer("llama"), 64)
    found = wanted_completions(rows, encoder)
    assert found is not None and len(found) == 5 and found.num_targets == 5 * 2  # the word and the end
    alone = [Row({"film": row.values["film"]}, row.where, row.number) for row in rows]
    assert wanted_completions(alone, encoder) is None
