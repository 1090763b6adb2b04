"""What judgements are worth, on small stores whose numbers can be counted by hand."""

from __future__ import annotations

import json
import math

import pytest

from tests import ranking
from tunewright.data.judgements import Judgements
from tunewright.evaluation.judgement_quality import length, pairs_of, quality, triples, wins


@pytest.fixture
def store(tmp_path):
    with ranking.store(tmp_path / "j.db", prompts=10, completions=3) as opened:
        yield opened


def measured(store: Judgements, **settings):
    return quality(store.judgements(), store.completions(), **settings)


def test_a_ranking_is_all_its_pairs(store):
    ranking.judge(store, "ann", 0, "b>a=c")
    _, (a, b, c) = ranking.ids(store)
    found = {frozenset((pair.first, pair.second)): pair for pair in pairs_of(store.judgements())}
    better = lambda x, y: found[frozenset((x, y))].outcome * (1 if x < y else -1)  # noqa: E731
    assert (better(b, a), better(b, c), better(a, c)) == (1, 1, 0)
    assert measured(store).pairs == 3
    assert (measured(store).ties.count, measured(store).ties.total) == (1, 3)


def test_skipped_and_unranked_judgements_are_in_no_pair(store):
    ranking.judge(store, "ann", 0, "", flags=["skip"])
    ranking.judge(store, "ann", 1, "", flags=["both_bad"])
    ranking.judge(store, "ann", 2, "a>b>c", flags=["both_bad"])
    found = measured(store)
    assert (found.judgements, found.skipped, found.all_bad, found.pairs) == (2, 1, 2, 3)


def test_the_share_of_the_left_is_of_the_page_and_not_of_ids(store):
    ranking.judge(store, "ann", 0, "a>b>c", shown="abc")  # all three pairs left
    ranking.judge(store, "ann", 1, "a>b>c", shown="cba")  # none
    ranking.judge(store, "ann", 2, "b>a>c", shown="abc")  # a over c, b over c
    left = measured(store).left
    assert (left.count, left.total) == (5, 9)


def test_ties_and_imported_judgements_have_no_left(store):
    ranking.judge(store, "ann", 0, "a=b=c")
    ranking.judge(store, "ann", 1, "a>b>c", flags=["imported"])
    found = measured(store)
    assert (found.left.total, found.longer.total) == (0, 3)


def test_the_share_of_the_longer(store):
    """Texts grow from a to c."""
    ranking.judge(store, "ann", 0, "c>b>a")
    ranking.judge(store, "ann", 1, "a>b>c")
    ranking.judge(store, "ann", 2, "c>a=b")
    longer = measured(store).longer
    assert (longer.count, longer.total) == (5, 8)


def test_equally_long_ones_are_no_question_of_length(tmp_path):
    with Judgements.open(tmp_path / "j.db") as store:
        prompt = store.add_prompt("?", "x:1")
        ids = [store.add_completion(prompt, text, "x") for text in ("yes", "non", "nope")]
        store.record(prompt, "ann", ids, [[ids[0]], [ids[1]], [ids[2]]])
        assert (measured(store).longer.count, measured(store).longer.total) == (0, 2)


def test_messages_are_as_long_as_what_they_say():
    assert length("four") == 4
    assert length([{"role": "user", "content": "four"}, {"role": "assistant", "content": None}]) == 4


def test_two_people_of_one_opinion_and_of_opposite_ones(store):
    for number in range(10):
        order = "a>b>c" if number % 2 else "c>b>a"
        ranking.judge(store, "ann", number, order)
        ranking.judge(store, "bob", number, order)
        ranking.judge(store, "cem", number, order[::-1])
    found = measured(store)
    kappa = {(two.first, two.second): (two.pairs, two.same, two.kappa) for two in found.together}
    assert kappa["ann", "bob"] == (30, 1.0, 1.0)
    assert kappa["ann", "cem"][:2] == (30, 0.0)
    assert kappa["ann", "cem"][2] < -0.9
    assert found.nominal.units == 30


def test_alpha_is_one_where_all_agree_and_its_interval_resamples_prompts(store):
    for number in range(10):
        ranking.judge(store, "ann", number, "a>b>c" if number % 3 else "b>c>a")
        ranking.judge(store, "bob", number, "a>b>c" if number % 3 else "b>c>a")
    found = measured(store)
    assert (found.nominal.value, found.ordinal.value) == (1.0, 1.0)
    ranking.judge(store, "bob", 0, "a>c>b")
    assert 0 < measured(store).nominal.interval.low < measured(store).nominal.value < 1
    assert measured(store, samples=0).nominal.interval is None


def test_a_tie_is_half_a_disagreement_in_order_and_a_whole_one_by_name(store):
    for number in range(10):
        ranking.judge(store, "ann", number, "a>b>c" if number % 2 else "c>b>a")
        ranking.judge(store, "bob", number, "a>b=c" if number % 2 else "c>b=a")
    found = measured(store)
    assert found.ordinal.value > found.nominal.value


def test_people_one_by_one(store):
    for number, seconds in enumerate((3.0, 5.0, 40.0)):
        ranking.judge(store, "ann", number, "a>b>c", seconds=seconds)
    ranking.judge(store, "bob", 3, "", flags=["skip"], seconds=900.0)
    ranking.judge(store, "bob", 4, "a=b=c", shown="bca")
    ann, bob = measured(store).people
    assert (ann.name, ann.judged, ann.skipped, ann.seconds, ann.left.value) == ("ann", 3, 0, 5.0, 1.0)
    assert (bob.judged, bob.skipped, bob.seconds, bob.ties.value, bob.left.total) == (1, 1, None, 1.0, 0)
    assert measured(store).seconds == 5.0


def test_a_ranking_cannot_contradict_itself(store):
    ranking.judge(store, "ann", 0, "a>b>c")
    own, pooled = triples(pairs_of(store.judgements()))
    assert (own.total, pooled.total) == (0, 0)


def test_circles_of_one_person_judging_in_parts(store):
    for number in range(2):
        ranking.judge(store, "ann", number, "a>b")
        ranking.judge(store, "ann", number, "b>c")
    ranking.judge(store, "ann", 0, "c>a")
    ranking.judge(store, "ann", 1, "a>c")
    own, pooled = triples(pairs_of(store.judgements()))
    assert (own.circles, own.total) == (1, 2)
    assert (pooled.circles, pooled.total) == (1, 2)


def test_three_with_a_tie_among_them_go_in_no_circle(store):
    ranking.judge(store, "ann", 0, "a>b")
    ranking.judge(store, "ann", 0, "b>c")
    ranking.judge(store, "ann", 0, "c=a")
    own, pooled = triples(pairs_of(store.judgements()))
    assert (own.total, pooled.total) == (0, 0)


def test_a_majority_can_go_in_circles_where_nobody_does(store):
    """Condorcet 1785."""
    for who, order in {"ann": "a>b>c", "bob": "b>c>a", "cem": "c>a>b"}.items():
        ranking.judge(store, who, 0, order)
    own, pooled = triples(pairs_of(store.judgements()))
    assert (own.total, pooled.circles, pooled.total) == (0, 1, 1)


def test_who_won(store):
    """a and c are gemma's, b is the tuned model's."""
    ranking.judge(store, "ann", 0, "b>a>c")
    ranking.judge(store, "ann", 1, "b=a>c")
    ranking.judge(store, "bob", 2, "a>b>c")
    [found] = wins(store.judgements(), store.origins())
    assert (found.first, found.second) == ("gemma", "run:tuned")
    assert (found.won, found.tied, found.lost, found.same) == (1, 1, 4, 0)
    assert (found.share.count, found.share.total) == (1, 5)


def test_what_both_wrote_compares_with_nothing_and_is_counted(store):
    prompt, (_, _b, _) = ranking.ids(store)
    store.add_completion(prompt, "Answer b to 0 and more", "gemma", {"draw": 7})
    ranking.judge(store, "ann", 0, "b>a>c")
    [found] = wins(store.judgements(), store.origins())
    assert (found.won, found.tied, found.lost, found.same) == (0, 0, 0, 1)
    assert math.isnan(found.share.value)


def test_an_empty_store_and_json(store):
    for number in range(2):
        text = json.dumps(measured(store).to_json(), allow_nan=False)
        assert json.loads(text)["judgements"] == number
        ranking.judge(store, "ann", 0, "a>b>c")
    ranking.judge(store, "bob", 0, "a>b>c")
    json.dumps(measured(store).to_json(), allow_nan=False)
    json.dumps([one.to_json() for one in wins(store.judgements(), store.origins())], allow_nan=False)
