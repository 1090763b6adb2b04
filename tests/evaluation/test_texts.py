"""Tables of written text agree with rouge-score, sacrebleu and SQuAD's script; intervals and tests with the truth."""

from __future__ import annotations

import builtins
import math
import sys
import time

import numpy as np
import pytest

from tests.evaluation import test_overlap
from tunewright.errors import DataError
from tunewright.evaluation import statistics
from tunewright.evaluation import texts as t

PLAIN = ["exact_match", "f1", "rouge_1", "rouge_2", "rouge_l", "length_ratio"]


def several(seed: int, rows: int) -> tuple[list[str], list[list[str]]]:
    """Predictions, and one to three references each."""
    made = test_overlap.texts(seed, 4 * rows, 14)
    return made[:rows], [made[rows + 3 * i : rows + 3 * i + 1 + i % 3] for i in range(rows)]


def test_the_best_reference_counts() -> None:
    scores = t.score_texts(["the Seine", "Rhône"], [["Rhine", "Seine river", "Seine"], ["Loire"]], [True, False])
    assert list(scores.metrics) == [name for name in t.WORDS if name in scores.metrics]  # in the table's order
    assert scores.metrics["exact_match"] == scores.metrics["f1"] == 0.5
    assert scores.metrics["stopped"] == 0.5
    assert scores.per_row["exact_match"].tolist() == [1.0, 0.0]
    assert scores.per_row["length_ratio"].tolist() == [[2, 2], [2, 1]]  # "Rhône" has two of rouge-score's words


def test_rouge_equals_rouge_score_with_several_references() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"])
    predictions, references = several(5, 80)
    oracle = [scorer.score_multi(own, text) for text, own in zip(predictions, references, strict=True)]
    found = t.score_texts(predictions, references).per_row
    for name, theirs in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        np.testing.assert_allclose(found[name], [row[theirs].fmeasure for row in oracle], atol=1e-12)


@pytest.mark.parametrize("most", [1, 3])
def test_bleu_and_chrf_equal_sacrebleu(most: int) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    predictions, references = several(6, 90)
    references = [own[:most] for own in references]
    predictions[:30] = [f"{own[0]} indeed" for own in references[:30]]
    streams = [[own[i] if i < len(own) else None for own in references] for i in range(most)]
    scores = t.score_texts(predictions, references)
    assert scores.metrics["bleu"] == pytest.approx(sacrebleu.corpus_bleu(predictions, streams).score, abs=1e-9)
    assert scores.metrics["chrf"] == pytest.approx(sacrebleu.corpus_chrf(predictions, streams).score, abs=1e-9)
    assert 5 < scores.metrics["bleu"] < 95
    assert any("tok:13a" in note for note in scores.notes)


def test_sacrebleu_gives_no_advice(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("sacrebleu")
    t.score_texts(["done ."] * 120, [["done ."]] * 120)
    assert caplog.records == []


def test_without_sacrebleu_its_metrics_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: object, **named: object) -> object:
        if name.startswith("sacrebleu"):
            raise ImportError(name)
        return real(name, *rest, **named)

    for name in [name for name in sys.modules if name.startswith("sacrebleu")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", absent)
    scores = t.score_texts(["a b"], [["a b"]])
    assert list(scores.metrics) == PLAIN
    assert scores.notes == ()
    assert set(t.intervals(scores)) == set(PLAIN)


def test_other_languages_get_their_own_words_and_say_so() -> None:
    scores = t.score_texts(["巴黎是首都。", "塞纳河"], [["巴黎是法国首都"], ["塞纳河"]])
    assert scores.metrics["exact_match"] == 0.5
    assert scores.metrics["rouge_l"] == pytest.approx((2 * 5 / 12 + 1) / 2)
    assert scores.metrics["length_ratio"] == 8 / 10
    assert "any script" in scores.notes[0]
    if "bleu" in scores.metrics:
        assert any("tok:zh" in note for note in scores.notes)
        assert scores.metrics["bleu"] > 10


@pytest.mark.parametrize(("references", "tokenizer"), [
    ([["Paris"]], "13a"), ([["東京タワー"]], "char"), ([["首都是巴黎", "L"]], "zh"), ([["กินข้าว"]], "char"),
    ([["기차"]], "13a"), ([[""]], "13a"), ([["Tokyo (東京)"]], "13a"),
])  # fmt: skip
def test_bleu_never_sees_a_sentence_as_one_word(references: list[list[str]], tokenizer: str) -> None:
    assert t._tokenizer(references) == tokenizer


def test_a_stemmer_is_a_choice() -> None:
    plain, stemmed = (t.score_texts(["running"], [["runs"]], stem=stem) for stem in (None, lambda word: word[:3]))
    assert (plain.metrics["rouge_1"], stemmed.metrics["rouge_1"]) == (0, 1)


def test_a_row_without_reference_is_an_error() -> None:
    with pytest.raises(DataError, match="row 2: there is no reference"):
        t.score_texts(["a", "b"], [["a"], []])


def test_texts_that_do_not_pair_up_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        t.score_texts(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="zip"):
        t.score_texts(["a", "b"], [["a"], ["b"]], [True])


def test_no_rows_have_no_metrics() -> None:
    scores = t.score_texts([], [], [])
    assert scores.metrics == {}
    assert t.intervals(scores) == {}
    assert t.paired(scores, scores) == {}
    assert t.score_likelihoods(np.zeros(0), np.zeros(0)).metrics == {}


def test_empty_references_have_no_length_ratio() -> None:
    scores = t.score_texts(["a b"], [[""]])
    assert "length_ratio" not in scores.metrics
    assert all(math.isfinite(value) for value in scores.metrics.values())


def test_perplexity() -> None:
    assert t.perplexity(3 * math.log(7), 3) == pytest.approx(7)
    assert math.isnan(t.perplexity(0, 0))
    assert t.perplexity(1e6, 1) == math.inf
    scores = t.score_likelihoods(np.array([2.0, 6.0]), np.array([1, 3]), np.array([1, 1]))
    assert scores.metrics == pytest.approx({"perplexity": math.e**2, "token_accuracy": 0.5, "loss": 2.0})
    assert "perplexity" not in t.score_likelihoods(np.array([1e6]), np.array([1])).metrics


# --- how sure ---------------------------------------------------------------------------------------------------


def test_intervals_are_those_of_the_general_bootstrap() -> None:
    predictions, references = several(8, 60)
    predictions[:25] = [own[0] for own in references[:25]]
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 20, 60)
    told = t.score_likelihoods(tokens * rng.exponential(size=60), tokens)
    scores = t.joined(t.score_texts(predictions, references, rng.random(60) < 0.7), told)
    found = t.intervals(scores, 800, 0)
    assert set(found) == set(scores.metrics)

    again: list[dict[str, float]] = []
    for rows in rng.integers(0, 60, (60, 60)):  # scored anew from the texts of each resample
        texts = t.score_texts([predictions[i] for i in rows], [references[i] for i in rows])
        nats = t.score_likelihoods(told.per_row["loss"][rows, 0], tokens[rows])
        again.append(t.joined(texts, nats).metrics)
    for name in again[0]:
        low, high = found[name].to_json()
        assert low < scores.metrics[name] < high
        slow = statistics.percentiles(np.array([one[name] for one in again]))
        assert (low, high) == pytest.approx((slow.low, slow.high), abs=0.3 * (high - low)), name


def test_a_base_that_never_answers_is_not_certain_to() -> None:
    found = t.intervals(t.score_texts(["no"] * 20, [["yes"]] * 20, [True] * 20))
    assert found["exact_match"].high == found["f1"].high == found["rouge_l"].high == pytest.approx(0.168, abs=1e-3)
    assert found["stopped"].low == pytest.approx(0.832, abs=1e-3)


def test_paired_sees_what_changed() -> None:
    references = [[f"answer number {i} of many more words"] for i in range(60)]
    before = t.score_texts(["nothing of the kind"] * 60, references, [False] * 60)
    after = t.score_texts([own[0] if i < 40 else "nothing of the kind" for i, own in enumerate(references)], references)
    found = t.paired(before, after)
    assert set(found) <= set(t.HIGHER_IS_BETTER)
    assert "length_ratio" not in found  # has no better side
    assert "stopped" not in found  # nobody knows it of one of them
    for name in ("exact_match", "f1", "rouge_l", "bleu", "chrf"):
        if name in after.metrics:
            one = found[name]
            assert (one.fixed, one.broke) == (40, 0), name
            assert one.p_value < 0.01
            assert one.difference == pytest.approx(after.metrics[name] - before.metrics[name])
            assert 0 < one.interval.low < one.difference < one.interval.high
    assert found["exact_match"].p_value == pytest.approx(2 * 0.5**40)


def test_paired_knows_which_side_is_better() -> None:
    tokens = np.full(30, 10.0)
    nats = 10 * np.linspace(1, 3, 30)
    found = t.paired(t.score_likelihoods(nats, tokens), t.score_likelihoods(nats - 1, tokens))
    for name in ("loss", "perplexity"):
        assert (found[name].fixed, found[name].broke) == (30, 0)
        assert found[name].difference < 0
        assert found[name].interval.high < 0
    assert found["loss"].difference == pytest.approx(-0.1)


def test_the_same_model_twice_means_nothing() -> None:
    predictions, references = several(9, 30)
    scores = t.score_texts(predictions, references)
    for one in t.paired(scores, scores).values():
        assert (one.fixed, one.broke, one.p_value, one.difference) == (0, 0, 1.0, 0.0)


def test_the_paired_test_errs_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    false_alarms = 0
    for seed in range(200):
        both = [t.TextScores({"f1": float(rows.mean())}, {"f1": rows}) for rows in rng.random((2, 60))]
        false_alarms += t.paired(both[0], both[1], 200, seed)["f1"].p_value < 0.05
    assert 2 <= false_alarms <= 22


def test_p_value_is_two_sided_and_never_zero() -> None:
    assert t.p_value(np.ones(99)) == pytest.approx(0.02)
    assert t.p_value(np.array([-1.0] * 4 + [1.0] * 15)) == pytest.approx(0.5)
    assert t.p_value(np.zeros(9)) == 1
    assert t.p_value(np.array([1.0, np.nan])) == 1


def test_other_rows_can_not_be_paired() -> None:
    with pytest.raises(ValueError, match="same rows"):
        t.paired(t.score_texts(["a"], [["a"]]), t.score_texts(["a", "b"], [["a"], ["b"]]))


def test_the_same_seed_gives_the_same_numbers() -> None:
    predictions, references = several(10, 30)
    scores = t.score_texts(predictions, references)
    assert t.intervals(scores, 100, 3) == t.intervals(scores, 100, 3)
    assert t.intervals(scores, 100, 3)["f1"] != t.intervals(scores, 100, 4)["f1"]


def test_every_metric_has_words() -> None:
    scores = t.joined(t.score_texts(["a"], [["a"]], [True]), t.score_likelihoods(np.ones(1), np.ones(1), np.ones(1)))
    assert set(scores.metrics) <= set(t.WORDS)
    assert set(t.HIGHER_IS_BETTER) == set(t.WORDS) - {"length_ratio"}


def test_two_hundred_summaries_with_intervals_take_under_three_seconds() -> None:
    rng = np.random.default_rng(12)
    made = [" ".join(rng.choice([f"w{i}" for i in range(300)], 40)) for _ in range(40)]
    start = time.process_time()
    t.intervals(t.score_texts(made[:20] * 10, [[text] for text in made[20:]] * 10))
    assert time.process_time() - start < 3
