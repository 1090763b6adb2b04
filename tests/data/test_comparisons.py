"""Comparisons are recognised in every shape people have them in, and the rows of one prompt become one."""

from __future__ import annotations

import json

import pytest

from tests.data.test_written import DATA, SHARED, Rows
from tunewright.data.comparison_reading import Pair
from tunewright.data.comparisons import Comparisons
from tunewright.data.reading import open_file
from tunewright.errors import DataError, RecipeError

TEA = {"prompt": "Tea?", "chosen": "Yes, please.", "rejected": "No."}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def read(*rows, **asked):
    found = Comparisons.of(Rows(*rows), **asked)
    return found, list(found.groups())


def completions(group):
    return [row.values["completion"] for row in group.rows]


def test_prompt_chosen_and_rejected():
    found, (group,) = read(TEA)
    assert completions(group) == ["Yes, please.", "No."] and group.rows[0].values["prompt"] == "Tea?"
    assert group.pairs == (Pair(0, 1),) and (group.where, group.number) == ("rows.jsonl:1", 0)
    assert found.said[0] == "comparisons: chosen and rejected"
    assert found.said[-1] == "1 comparisons of 1 prompts with 2 completions"


TALKS = {
    "messages": {"prompt": [user("Tea?")], "chosen": [assistant("Yes")], "rejected": [assistant("No")]},
    "answers as texts": {"prompt": [user("Tea?")], "chosen": "Yes", "rejected": "No"},
    "whole conversations": {"chosen": [user("Tea?"), assistant("Yes")], "rejected": [user("Tea?"), assistant("No")]},
    "with the prompt once more": {
        "prompt": "Tea?",
        "chosen": [user("Tea?"), assistant("Yes")],
        "rejected": [user("Tea?"), assistant("No")],
    },
    "ShareGPT": {
        "conversations": [{"from": "human", "value": "Tea?"}],
        "chosen": {"from": "gpt", "value": "Yes"},
        "rejected": {"from": "gpt", "value": "No"},
    },
}


@pytest.mark.parametrize("row", TALKS.values(), ids=TALKS)
def test_conversations_in_every_shape(row):
    found, (group,) = read(row)
    assert found.reading.talks and found.format.talks
    assert group.rows[0].values["prompt"] == [user("Tea?")]
    assert completions(group) == [[assistant("Yes")], [assistant("No")]]
    assert not any("not used" in sentence for sentence in found.said)


def test_a_system_message_of_sharegpt_comes_first():
    row = {**TALKS["ShareGPT"], "system": "Be brief."}
    _, (group,) = read(row)
    assert group.rows[0].values["prompt"] == [{"role": "system", "content": "Be brief."}, user("Tea?")]


def test_conversations_in_one_text_part_where_the_last_answer_begins():
    begin = "\n\nHuman: Tea?\n\nAssistant: Yes.\n\nHuman: Milk?\n\nAssistant:"
    found, (group,) = read({"chosen": f"{begin} A little.", "rejected": f"{begin} A lot."})
    assert group.rows[0].values["prompt"] == begin
    assert completions(group) == [" A little.", " A lot."]
    assert "no column of prompts: what both completions begin with is the prompt" in found.said


def test_all_pairs_of_a_ranking_with_ties():
    row = {"prompt": "Tea?", "completions": ["a", "b", "c", "d"], "ranking": [[2], [0, 3]]}
    _, (group,) = read(row)
    assert set(group.pairs) == {Pair(0, 3, 0.5), Pair(2, 0), Pair(2, 3)}  # nobody ranked b
    _, (flat,) = read({**row, "ranking": [1, 0]})
    assert flat.pairs == (Pair(1, 0),)
    _, (csv,) = read({"prompt": "Tea?", "completions": json.dumps(["a", "b"]), "ranking": "[[1], [0]]"})
    assert csv.pairs == (Pair(1, 0),)


def test_rows_of_a_group_are_one_prompt_wherever_they_stand():
    rows = [
        {**TEA, "group": "t", "annotator": "Ada"},
        {"prompt": "Rain?", "chosen": "Yes", "rejected": "No", "group": None},
        {"prompt": "Tea?", "chosen": "No.", "rejected": "Yes, please.", "group": "t", "annotator": "Bob"},
        {"prompt": "Tea?", "chosen": "Milk.", "rejected": "No.", "group": "t", "annotator": "Ada"},
    ]
    found, (rain, tea) = read(*rows)
    assert rain.where == "rows.jsonl:2" and completions(tea) == ["Yes, please.", "No.", "Milk."]
    assert [(pair.better, pair.worse, pair.annotator) for pair in tea.pairs] == [
        (0, 1, "Ada"),
        (1, 0, "Bob"),
        (2, 1, "Ada"),
    ]
    assert found.annotators == ("Ada", "Bob") and len(found) == 2
    with pytest.raises(DataError, match=r"rows.jsonl:2.*another prompt than rows.jsonl:1"):
        read({**TEA, "group": 1}, {**TEA, "prompt": "Rain?", "group": 1})


def test_rows_of_a_group_may_differ_in_what_is_no_part_of_the_prompt():
    _, groups = read({**TEA, "id": 1, "group": 1}, {**TEA, "chosen": "Now.", "id": 2, "group": 1})
    assert len(groups) == 1


@pytest.mark.parametrize(
    "label, pair",
    [(1, Pair(0, 1)), (0.5, Pair(0, 1, 0.5)), (0.8, Pair(0, 1, 0.8)), (0.25, Pair(1, 0, 0.75)), (None, Pair(0, 1)),
     ("1", Pair(0, 1)), (True, Pair(0, 1)), (False, Pair(1, 0))],
)  # fmt: skip
def test_a_label_says_how_sure_the_comparison_is(label, pair):
    found, groups = read({**TEA, "label": 1}, {**TEA, "prompt": "Milk?", "label": label})
    assert groups[1].pairs == (pair,) and found.num_ties == (pair.weight == 0.5)


def test_a_label_in_words_is_of_something_else():
    found, (group,) = read({**TEA, "label": "helpful"})
    assert found.reading.label is None and group.pairs == (Pair(0, 1),)


def test_a_margin_is_read_where_it_is_named():
    row = {**TEA, "better_by": 2}
    assert read(row)[1][0].pairs[0].margin == 0
    assert read(row, margin="better_by")[1][0].pairs[0].margin == 2
    ranked = {"prompt": "Tea?", "completions": ["a", "b", "c"], "ranking": [[0], [1], [2]], "scores": [5, 3, 2.5]}
    _, (group,) = read(ranked, margin="scores")
    assert {(p.better, p.worse): p.margin for p in group.pairs} == {(0, 1): 2, (0, 2): 2.5, (1, 2): 0.5}
    with pytest.raises(RecipeError, match=r'no column "bettr_by".*Did you mean "better_by"'):
        read(row, margin="bettr_by")


def test_a_text_compared_with_itself_is_left_out_and_counted():
    found, groups = read(TEA, {"prompt": "Rain?", "chosen": "x", "rejected": "x"})
    assert len(groups) == len(found) == 1 and found.num_same == 1
    assert "1 rows that compare a text with itself left out" in found.said[-1]


def test_a_template_reads_the_prompt_as_generate_would():
    row = {"question": "Tea?", "chosen": "Yes", "rejected": "No"}
    for template in ("Q: {question}\nA: {completion}", "Q: {question}\nA: {chosen}"):
        found, (group,) = read(row, template=template)
        assert "".join(s.text for s in found.format.segments(group.rows[1])) == "Q: Tea?\nA: No"
    alpaca, (group,) = read({"instruction": "Tea?", "chosen": "Yes", "rejected": "No"})
    assert alpaca.format.name == "Alpaca"
    assert "".join(s.text for s in alpaca.format.segments(group.rows[0])).endswith("### Response:\nYes")


def test_prompts_are_read_as_before():
    found, _ = read({"question": "Tea?", "chosen": "Yes", "rejected": "No"}, template="{question} {completion}")
    again, _ = read({"question": "Rain?", "chosen": "Yes", "rejected": "No"}, form=found.format)
    assert again.format is found.format
    with pytest.raises(DataError, match='no column "question"'):
        read(TEA, form=found.format)
    with pytest.raises(DataError, match="holds conversations, and the prompts were read as texts"):
        read(TALKS["messages"], form=found.format)


def test_equal_prompts_have_equal_numbers():
    found, _ = read(TEA, {**TEA, "chosen": "Now!"}, {**TEA, "prompt": "TEA? "}, {**TEA, "prompt": "Rain?"})
    a, b, c, d = found.prompt_hashes.tolist()
    assert a == b == c != d
    assert len(set(found.hashes.tolist())) == 3  # the third is the first in other letters


@pytest.mark.parametrize(
    "row, says",
    [
        ({"prompt": "Tea?", "completion": "Yes"}, "hold no comparisons; expected prompt, chosen and rejected"),
        ({**TEA, "rejected": ""}, 'rows.jsonl:1.*"rejected" is empty'),
        ({**TEA, "rejected": None, "chosen": "x"}, 'rows.jsonl:1.*"rejected" is null'),
        ({**TEA, "label": 0.5, "x": 1} | {"chosen": ["a"]}, '"chosen" is a list of 1; expected a text'),
        ({"prompt": "Tea?", "completions": ["a"], "ranking": [0]}, '"completions" is a list of 1; expected a list of'),
        ({"prompt": "Tea?", "completions": ["a", "b"], "ranking": [[0], [2]]}, '"ranking" names 2; expected places of'),
        ({"prompt": "Tea?", "completions": ["a", "b"], "ranking": [[0], [0]]}, "expected each completion once"),
        ({"prompt": "Tea?", "completions": ["a", "b"], "ranking": []}, "expected each completion once"),
        ({"prompt": "x", "chosen": "same", "rejected": "same"}, "no row compares two different completions"),
        (
            {"chosen": [user("Tea?"), assistant("Yes")], "rejected": [user("Rain?"), assistant("No")]},
            "do not begin with the same question",
        ),
    ],
)  # fmt: skip
def test_what_is_no_comparison_is_said_in_a_line(row, says):
    with pytest.raises(DataError, match=says):
        read(row)


def test_a_label_out_of_range_and_a_margin_below_zero():
    with pytest.raises(DataError, match=r'rows.jsonl:2.*"label" is 3; expected 1'):
        read({**TEA, "label": 1}, {**TEA, "label": 3})
    with pytest.raises(DataError, match="better by -1; expected 0 or more"):
        read({**TEA, "by": -1}, margin="by")


def test_a_template_is_for_texts():
    with pytest.raises(RecipeError, match="the rows are conversations"):
        read(TALKS["ShareGPT"], template="{prompt} {completion}")


@SHARED
def test_the_real_preferences():
    found = Comparisons.of(open_file(DATA / "preferences_train.jsonl"))
    assert len(found) == 250 and found.num_ties == 0
    assert all(len(group.rows) == 2 and group.pairs == (Pair(0, 1),) for group in found.groups())
