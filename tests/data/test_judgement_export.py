"""Judgements as training data: every format, what is left out, and that training reads what was written."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests import ranking
from tunewright.data.comparisons import Comparisons
from tunewright.data.judgement_export import export
from tunewright.data.judgements import Judgements
from tunewright.data.reading import open_file
from tunewright.data.written import recognise
from tunewright.errors import UsageError


@pytest.fixture
def store(tmp_path):
    with ranking.store(tmp_path / "j.db", prompts=6, completions=3) as opened:
        ranking.judge(opened, "ann", 0, "b>a>c", shown="cab", seconds=4.5)
        ranking.judge(opened, "ann", 1, "a>b=c", shown="cab")
        ranking.judge(opened, "bob", 1, "c>a>b")
        ranking.judge(opened, "ann", 2, "", flags=["skip"])
        ranking.judge(opened, "ann", 3, "", flags=["both_bad"])
        ranking.judge(opened, "ann", 4, "a>b>c")
        opened.undo("ann")
        yield opened


def written(tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return open_file(path)


def short(row):
    """`Answer b to 0 and more` -> b."""
    return row["chosen"][7], row["rejected"][7], row["label"]


def test_pairs_are_every_two_that_were_ranked(store):
    rows = export(store).rows
    first = [row for row in rows if row["prompt"] == "Question 0?"]
    assert [short(row) for row in first] == [("b", "a", 1.0), ("b", "c", 1.0), ("a", "c", 1.0)]
    assert {row["annotator"] for row in first} == {"ann"}
    assert {row["group"] for row in first} == {ranking.ids(store, 0)[0]}
    assert set(first[0]) == {"prompt", "chosen", "rejected", "label", "group", "annotator"}


def test_a_tie_is_half_and_stands_as_it_was_shown(store):
    rows = [row for row in export(store).rows if row["prompt"] == "Question 1?" and row["annotator"] == "ann"]
    assert [short(row) for row in rows] == [("a", "c", 1.0), ("a", "b", 1.0), ("c", "b", 0.5)]


def test_two_people_on_one_prompt_are_one_group(store):
    rows = [row for row in export(store).rows if row["prompt"] == "Question 1?"]
    assert Counter(row["annotator"] for row in rows) == {"ann": 3, "bob": 3}
    assert len({row["group"] for row in rows}) == 1


def test_what_is_left_out_is_said_with_numbers(store):
    found = export(store)
    expected = {
        "rows": 9,
        "unpaired": 0,
        "judgements": 3,
        "ties": 1,
        "ties_left_out": 0,
        "both_bad": 1,
        "skipped": 1,
        "withdrawn": 1,
    }
    assert found.counts == expected
    assert found.said == (
        "9 comparisons of 3 judgements",
        "1 tie among them has label 0.5, which other tools may not read (--no-ties leaves them out)",
        "not written: that all are bad, in 1 judgement (--unpaired FILE writes it)",
        "left out: 1 skipped",
        "left out: 1 withdrawn",
    )


def test_without_ties(store):
    found = export(store, ties=False)
    assert {row["label"] for row in found.rows} == {1.0}
    assert found.counts["rows"] == 8
    assert "left out: 1 tie" in found.said


def test_what_was_found_bad_becomes_unpaired_rows(store):
    found = export(store, unpaired=True)
    assert [(row["prompt"], row["completion"][:8], row["label"]) for row in found.unpaired] == [
        ("Question 3?", f"Answer {letter}", False) for letter in "abc"
    ]
    assert "3 completions of 1 judgement that all are bad, with label false" in found.said


def test_ranked_rows_hold_the_places_as_shown(store):
    row = export(store, "ranked").rows[0]
    assert [text[7] for text in row["completions"]] == ["c", "a", "b"]
    assert row["ranking"] == [[2], [1], [0]]
    assert (row["annotator"], row["seconds"], row["shown_order"]) == ("ann", 4.5, True)


def test_conversational_rows_are_messages(store):
    row = export(store, "conversational").rows[0]
    assert row["prompt"] == [{"role": "user", "content": "Question 0?"}]
    assert row["chosen"] == [{"role": "assistant", "content": "Answer b to 0 and more"}]


def test_one_conversation_makes_every_row_one(store):
    """A file whose rows are of two kinds is read by nobody."""
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tea?"}]
    prompt = store.add_prompt(talk, "x:1")
    ids = [store.add_completion(prompt, [{"role": "assistant", "content": text}], "x") for text in ("Yes.", "No.")]
    store.record(prompt, "ann", ids, [[ids[1]], [ids[0]]])
    rows = export(store).rows
    assert all(isinstance(row[name], list) for row in rows for name in ("prompt", "chosen", "rejected"))
    assert rows[-1]["prompt"] == talk


@pytest.mark.parametrize("form", ["pairs", "ranked", "conversational"])
def test_training_reads_what_was_written(store, tmp_path, form):
    """The comparisons of `task: reward`: same pairs, ties and people, all of a prompt in one group."""
    found = Comparisons.of(written(tmp_path, export(store, form).rows))
    assert (found.num_comparisons, found.num_ties, len(found), found.annotators) == (9, 1, 2, ("ann", "bob"))
    groups = list(found.groups())
    assert [len(group.rows) for group in groups] == [3, 3]
    first = groups[0]
    name = lambda place: json.dumps(first.rows[place].values["completion"]).partition("Answer ")[2][0]  # noqa: E731
    assert [(name(pair.better), name(pair.worse)) for pair in first.pairs] == [("b", "a"), ("b", "c"), ("a", "c")]


def test_demonstrations_are_what_generate_reads(store, tmp_path):
    prompt, _ = ranking.ids(store)
    store.write_demonstration(prompt, "ann", "My own.")
    store.write_demonstration(ranking.ids(store, 1)[0], "ann", "Taken back.")
    store.undo_demonstration("ann")
    found = export(store, "demonstrations")
    assert found.rows == [{"prompt": "Question 0?", "completion": "My own."}]
    assert recognise(written(tmp_path, found.rows)).name == "prompt and completion"


def test_demonstrations_of_conversations(tmp_path):
    with Judgements.open(tmp_path / "j.db") as store:
        prompt = store.add_prompt([{"role": "user", "content": "Tea?"}], "x:1")
        store.write_demonstration(prompt, "ann", "Please.")
        rows = export(store, "demonstrations").rows
        assert rows[0]["completion"] == [{"role": "assistant", "content": "Please."}]
        assert recognise(written(tmp_path, rows)).talks


def test_nothing_to_export_and_no_such_format(tmp_path):
    with ranking.store(tmp_path / "j.db") as store:
        for form, words in (
            ("pairs", "nobody has judged anything yet"),
            ("demonstrations", "nobody has written anything yet"),
            ("pears", 'no format; expected .* Did you mean "pairs"'),
        ):
            with pytest.raises(UsageError, match=words):
                export(store, form)
        ranking.judge(store, "ann", 0, "", flags=["skip"])
        with pytest.raises(UsageError, match="no judgement ranks anything"):
            export(store)
