"""Other people's judgements: our own exports there and back, TRL's rows, Argilla's and Label Studio's JSON by hand.

The shapes of the last two are those of their documentation: Argilla's record (fields, responses by question, 2.x), its
older record (responses by user, 1.x) and Hub rows; Label Studio's task with `Pairwise` and `Ranker` results.
"""

from __future__ import annotations

import json

import pytest

from tests import ranking
from tunewright.data.judgement_export import export
from tunewright.data.judgement_formats import read_judgements
from tunewright.data.judgements import Judgements
from tunewright.errors import DataError


@pytest.fixture
def empty(tmp_path):
    with Judgements.open(tmp_path / "new.db") as opened:
        yield opened


@pytest.fixture
def file(tmp_path):
    """Write rows: JSON lines, or one array."""

    def write(rows, name="given.jsonl"):
        path = tmp_path / name
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_text(json.dumps(rows) if name.endswith(".json") else lines, encoding="utf-8")
        return path

    return write


def opinions(store: Judgements) -> set[tuple[str, str, str]]:
    """(prompt, annotator, ranking as texts)."""
    texts = {one.id: one.text for one in store.completions()}
    texts = {id: text if isinstance(text, str) else text[-1]["content"] for id, text in texts.items()}
    prompts = {one.id: json.dumps(one.text) for one in store.prompts()}
    return {
        (
            prompts[one.prompt_id],
            one.annotator,
            " > ".join(" = ".join(sorted(texts[id] for id in group)) for group in one.ranking) or ",".join(one.flags),
        )
        for one in store.judgements()
    }


# ---- our own ----


@pytest.fixture
def store(tmp_path):
    with ranking.store(tmp_path / "old.db", prompts=6, completions=4) as opened:
        ranking.judge(opened, "ann", 0, "b>a=d>c", shown="cabd", seconds=4.5)
        ranking.judge(opened, "bob", 0, "d>c>b>a")
        ranking.judge(opened, "ann", 1, "a=b=c=d")
        ranking.judge(opened, "ann", 2, "c>a", shown="ca")
        yield opened


@pytest.mark.parametrize("form", ["pairs", "ranked"])
def test_there_and_back_is_the_same(store, empty, file, form):
    told = read_judgements(empty, file(export(store, form).rows))
    assert opinions(empty) == opinions(store)
    assert (told.judgements, told.prompts, told.left_out) == (4, 3, {})


def test_there_and_back_as_messages(store, empty, file):
    read_judgements(empty, file(export(store, "conversational").rows))
    as_text = {(json.loads(p)[0]["content"], who, order) for p, who, order in opinions(empty)}
    assert as_text == {(json.loads(p), who, order) for p, who, order in opinions(store)}


def test_ranked_rows_keep_places_and_seconds_and_pairs_say_that_they_dont(store, empty, file):
    read_judgements(empty, file(export(store, "ranked").rows))
    first = empty.judgements()[0]
    texts = {one.id: one.text for one in empty.completions()}
    assert [texts[id][7] for id in first.shown] == ["c", "a", "b", "d"]
    assert (first.seconds, first.has_places) == (4.5, True)
    assert first.created == store.judgements()[0].created
    for one in read_pairs(store, file, empty):
        assert not one.has_places


def read_pairs(store, file, empty):
    with Judgements.open(empty.database.path.with_name("pairs.db")) as other:
        read_judgements(other, file(export(store).rows, "pairs.jsonl"))
        return other.judgements()


@pytest.mark.parametrize("form", ["pairs", "ranked"])
def test_bringing_back_what_is_there_changes_nothing(store, file, form):
    before, origins = store.judgements(withdrawn=True), store.origins()
    told = read_judgements(store, file(export(store, form).rows))
    assert (store.judgements(withdrawn=True), store.origins()) == (before, origins)
    assert (told.judgements, told.known) == (4, 4)
    assert "4 of them were here already" in told.words()


def test_unpaired_rows_and_demonstrations_come_back(store, empty, file):
    ranking.judge(store, "ann", 3, "", flags=["both_bad"])
    store.write_demonstration(ranking.ids(store, 4)[0], "ann", "Mine.")
    told = read_judgements(empty, file(export(store, unpaired=True).unpaired))
    assert (told.judgements, told.prompts) == (4, 1)
    assert all(one.all_bad and len(one.shown) == 1 and one.annotator == "ann" for one in empty.judgements())
    told = read_judgements(empty, file(export(store, "demonstrations").rows, "d.jsonl"))
    assert (told.demonstrations, [one.text for one in empty.demonstrations()]) == (1, ["Mine."])
    assert told.words() == ["prompts with a completion: 1 demonstration of 1 prompt"]


# ---- TRL's ----


def test_plain_preference_rows(empty, file):
    rows = [
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        {"prompt": "The sea is", "chosen": " wet.", "rejected": " dry."},
    ]
    told = read_judgements(empty, file(rows), annotator="somebody")
    assert opinions(empty) == {
        ('"The sky is"', "somebody", " blue. >  green."),
        ('"The sea is"', "somebody", " wet. >  dry."),
    }
    assert told.words() == ["comparisons: 2 judgements of 2 prompts"]


def test_conversational_rows_with_and_without_a_prompt(empty, file):
    asked = [{"role": "user", "content": "Tea?"}]
    answer = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
    read_judgements(empty, file([{"prompt": asked, "chosen": answer("Yes."), "rejected": answer("No.")}]))
    implicit = [{"chosen": asked + answer("Maybe."), "rejected": asked + answer("Never.")}]
    read_judgements(empty, file(implicit, "implicit.jsonl"))
    assert len(empty.prompts()) == 1
    assert {order for _, _, order in opinions(empty)} == {"Yes. > No.", "Maybe. > Never."}


def test_sharegpt_rows(empty, file):
    rows = [
        {
            "conversations": [{"from": "human", "value": "Tea?"}],
            "chosen": {"from": "gpt", "value": "Yes."},
            "rejected": {"from": "gpt", "value": "No."},
        }
    ]
    read_judgements(empty, file(rows))
    assert empty.prompts()[0].text == [{"role": "user", "content": "Tea?"}]


def test_two_nameless_opinions_on_one_pair_are_two_people(empty, file):
    """Nobody says that one replaces the other."""
    rows = [{"prompt": "?", "chosen": "a", "rejected": "b"}, {"prompt": "?", "chosen": "b", "rejected": "a"}]
    read_judgements(empty, file(rows))
    assert opinions(empty) == {('"?"', "imported", "a > b"), ('"?"', "imported 2", "b > a")}
    read_judgements(empty, file(rows))
    assert len(empty.judgements()) == 2


def test_incomplete_and_contradicting_groups_stay_pairs(empty, file):
    pair = lambda group, a, b: {"prompt": group, "chosen": a, "rejected": b, "group": group, "annotator": "ann"}  # noqa: E731
    rows = [pair("part", "a", "b"), pair("part", "b", "c")]
    rows += [pair("circle", "a", "b"), pair("circle", "b", "c"), pair("circle", "c", "a")]
    read_judgements(empty, file(rows))
    orders = sorted(order for _, _, order in opinions(empty))
    assert orders == ["a > b", "a > b", "b > c", "b > c", "c > a"]


def test_soft_labels_margins_and_equal_texts_are_said(empty, file):
    rows = [
        {"prompt": "1", "chosen": "a", "rejected": "b", "label": 0.7, "margin": 2},
        {"prompt": "2", "chosen": "a", "rejected": "b", "label": 0.0},
        {"prompt": "3", "chosen": "a", "rejected": "b", "label": 0.5},
        {"prompt": "4", "chosen": "a", "rejected": "a", "label": 1.0},
    ]
    told = read_judgements(empty, file(rows))
    assert {(p, order) for p, _, order in opinions(empty)} == {('"1"', "a > b"), ('"2"', "b > a"), ('"3"', "a = b")}
    assert told.left_out == {
        "probabilities that one is better, taken as decided": 1,
        "margins": 1,
        "judgements of a completion alone, or of equal ones": 1,
    }


def test_unpaired_rows_of_trl(empty, file):
    rows = [
        {"prompt": "The sky is", "completion": " green.", "label": False},
        {"prompt": "The sky is", "completion": " blue.", "label": True},
    ]
    told = read_judgements(empty, file(rows))
    assert [one.flags for one in empty.judgements()] == [("both_bad", "imported")]
    assert told.left_out == {"completions that are good alone (label true), which ranks nothing": 1}


# ---- Argilla ----

FIELDS = {"instruction": "Name a colour.", "response-1": "Blue.", "response-2": "Paris.", "response-3": "Red."}
MODERN = [
    {
        "id": "a1",
        "fields": FIELDS,
        "metadata": {"source": "x"},
        "suggestions": {"ranking": {"value": ["response-2", "response-1", "response-3"], "score": None, "agent": "m"}},
        "responses": {
            "ranking": [
                {"value": ["response-1", "response-3", "response-2"], "user_id": "u1"},
                {"value": ["response-3", "response-1", "response-2"], "user_id": "u2"},
            ],
            "comment": [{"value": "fine", "user_id": "u1"}],
        },
        "status": "completed",
        "_server_id": "s1",
    },
    {"id": "a2", "fields": {**FIELDS, "instruction": "Another."}, "responses": {}, "suggestions": {}},
]
EXPECTED = {
    ('"Name a colour."', "u1", "Blue. > Red. > Paris."),
    ('"Name a colour."', "u2", "Red. > Blue. > Paris."),
}


def test_argilla_records(empty, file):
    told = read_judgements(empty, file(MODERN, "argilla.json"))
    assert opinions(empty) == EXPECTED
    assert told.left_out == {"records without an answer that ranks": 1}
    assert not empty.judgements()[0].has_places


def test_argilla_records_of_before_with_ties_and_drafts(empty, file):
    ranked = lambda *ranks: {  # noqa: E731
        "ranking": {"value": [{"rank": rank, "value": f"response-{n}"} for n, rank in enumerate(ranks, 1)]}
    }
    rows = [
        {
            "fields": FIELDS,
            "responses": [
                {"user_id": "u1", "status": "submitted", "values": ranked(1, 2, 1)},
                {"user_id": "u2", "status": "draft", "values": ranked(3, 2, 1)},
            ],
            "suggestions": [],
            "external_id": None,
        }
    ]
    told = read_judgements(empty, file(rows, "old.json"))
    assert opinions(empty) == {('"Name a colour."', "u1", "Blue. = Red. > Paris.")}
    assert told.left_out == {"responses that are drafts or were discarded": 1}


def test_argilla_rows_of_the_hub(empty, file):
    order = lambda *names: [{"rank": rank, "value": name} for rank, name in enumerate(names, 1)]  # noqa: E731
    before = {
        **FIELDS,
        "ranking": [
            {"user_id": "u1", "value": order("response-1", "response-3", "response-2"), "status": "submitted"},
            {"user_id": "u2", "value": order("response-3", "response-1", "response-2"), "status": "submitted"},
        ],
        "ranking-suggestion": None,
        "external_id": None,
        "metadata": "{}",
    }
    read_judgements(empty, file([before]))
    assert opinions(empty) == EXPECTED
    now = {
        **FIELDS,
        "ranking.responses": [["response-1", "response-3", "response-2"], ["response-3", "response-1", "response-2"]],
        "ranking.responses.users": ["u1", "u2"],
        "ranking.responses.status": ["submitted", "submitted"],
    }
    told = read_judgements(empty, file([now], "now.jsonl"))
    assert opinions(empty) == EXPECTED
    assert told.known == 2


def test_argilla_lists_side_by_side(empty, file):
    """A list of structs, as Parquet gives it back where it was a Sequence."""
    rows = [
        {
            **FIELDS,
            "ranking": {
                "user_id": ["u1"],
                "value": [{"rank": [1, 2, 2], "value": ["response-3", "response-1", "response-2"]}],
                "status": ["submitted"],
            },
        }
    ]
    read_judgements(empty, file(rows))
    assert opinions(empty) == {('"Name a colour."', "u1", "Red. > Blue. = Paris.")}


def test_argilla_label_question_on_two_fields(empty, file):
    fields = {"prompt": "Tea?", "response_1": "Yes.", "response_2": "No."}
    answers = [("u1", "response_2"), ("u2", "tie"), ("u3", "Response 1")]
    rows = [{"fields": fields, "responses": {"preference": [{"value": v, "user_id": u} for u, v in answers]}}]
    read_judgements(empty, file(rows, "labels.json"))
    assert {(who, order) for _, who, order in opinions(empty)} == {
        ("u1", "No. > Yes."),
        ("u2", "No. = Yes."),
        ("u3", "Yes. > No."),
    }


def test_argilla_with_several_texts_needs_to_know_the_prompt(empty, file):
    rows = [{"fields": {"one": "x", "two": "y", "a": "A", "b": "B"}, "responses": {"q": [{"value": ["b", "a"]}]}}]
    path = file(rows, "odd.json")
    with pytest.raises(DataError, match=r"no field holds the prompt; found one, two, a, b\. Name one with --prompt"):
        read_judgements(empty, path)
    assert empty.prompts() == []
    read_judgements(empty, path, prompt="two")
    assert opinions(empty) == {('"y"', "imported", "B > A")}


def test_argilla_without_a_ranking(empty, file):
    rows = [{"fields": FIELDS, "responses": {"mood": [{"value": "good", "user_id": "u"}]}}]
    with pytest.raises(DataError, match=r"found questions: mood\. Name it with --question"):
        read_judgements(empty, file(rows, "mood.json"))


# ---- Label Studio ----


def pairwise(selected, *, to_name="answer1,answer2", who=7, **more):
    result = {
        "value": {"selected": selected},
        "id": "r",
        "from_name": "pw",
        "to_name": to_name,
        "type": "pairwise",
        "origin": "manual",
    }
    return {"id": 1, "completed_by": who, "result": [result], "was_cancelled": False, "lead_time": 8.25, **more}


TASK = {"id": 1, "data": {"prompt": "Tea?", "answer1": "Yes.", "answer2": "No."}, "predictions": []}


def test_label_studio_pairwise(empty, file):
    people = {"id": 9, "email": "bob@example.org", "first_name": ""}
    tasks = [{**TASK, "annotations": [pairwise("left"), pairwise("right", who=people)]}]
    told = read_judgements(empty, file(tasks, "ls.json"))
    assert opinions(empty) == {('"Tea?"', "7", "Yes. > No."), ('"Tea?"', "bob@example.org", "No. > Yes.")}
    first = empty.judgements()[0]
    texts = {one.id: one.text for one in empty.completions()}
    assert (first.seconds, first.has_places, [texts[id] for id in first.shown]) == (8.25, True, ["Yes.", "No."])
    assert told.words() == ["Label Studio: 2 judgements of 1 prompt"]


def test_label_studio_cancelled_and_other_tags_are_said(empty, file):
    other = {"completed_by": 1, "result": [{"type": "choices", "value": {"choices": ["x"]}}]}
    tasks = [{**TASK, "annotations": [pairwise("left", was_cancelled=True), other, pairwise("right")]}]
    told = read_judgements(empty, file(tasks, "ls.json"))
    assert told.judgements == 1
    assert told.left_out == {
        "annotations that were cancelled": 1,
        "annotations by other tags than Pairwise and Ranker": 1,
    }


def test_label_studio_tags_that_are_no_columns(empty, file):
    """Their names are the configuration's; the columns end in 1 and 2."""
    tasks = [{**TASK, "annotations": [pairwise("left", to_name="txt-1,txt-2")]}]
    read_judgements(empty, file(tasks, "ls.json"))
    assert {order for *_, order in opinions(empty)} == {"Yes. > No."}


def test_label_studio_columns_by_name(empty, file):
    data = {"title": "T", "question": "Tea?", "gpt": "Yes.", "claude": "No."}
    path = file([{"id": 1, "data": data, "annotations": [pairwise("right", to_name="x,y")]}], "ls.json")
    with pytest.raises(DataError, match="name the two with --completions LEFT,RIGHT"):
        read_judgements(empty, path)
    read_judgements(empty, path, completions=("gpt", "claude"))
    assert opinions(empty) == {('"Tea?"', "7", "No. > Yes.")}
    with pytest.raises(DataError, match='"nothing" holds no text; name it with --prompt'):
        read_judgements(empty, path, completions=("gpt", "claude"), prompt="nothing")


ITEMS = [{"id": f"llm_{n}", "title": f"Model {n}", "body": text} for n, text in enumerate(("Yes.", "No.", "Hm."), 1)]


def ranker(given):
    result = {"from_name": "rank", "to_name": "answers", "type": "ranker", "value": {"ranker": given}}
    return {"completed_by": 3, "result": [result]}


@pytest.mark.parametrize("given", [["llm_2", "llm_3", "llm_1"], {"rank": ["llm_2", "llm_3", "llm_1"]}])
def test_label_studio_ranker(empty, file, given):
    tasks = [{"id": 1, "data": {"prompt": "Tea?", "items": ITEMS}, "annotations": [ranker(given)]}]
    read_judgements(empty, file(tasks, "ls.json"))
    assert opinions(empty) == {('"Tea?"', "3", "No. > Hm. > Yes.")}


def test_label_studio_buckets_need_their_order(empty, file):
    given = {"_": [], "biased": ["llm_3"], "relevant": ["llm_2", "llm_1"]}
    path = file([{"id": 1, "data": {"prompt": "Tea?", "items": ITEMS}, "annotations": [ranker(given)]}], "ls.json")
    with pytest.raises(DataError, match=r"name all of them with --buckets, best first"):
        read_judgements(empty, path)
    read_judgements(empty, path, buckets=("relevant", "biased"))
    assert opinions(empty) == {('"Tea?"', "3", "No. = Yes. > Hm.")}


def test_label_studio_item_that_is_not_there(empty, file):
    tasks = [{"id": 1, "data": {"prompt": "?", "items": ITEMS}, "annotations": [ranker(["llm_9", "llm_1"])]}]
    with pytest.raises(DataError, match='an item "llm_9" that "data" lacks'):
        read_judgements(empty, file(tasks, "ls.json"))


def test_label_studio_without_any_ranking(empty, file):
    with pytest.raises(DataError, match="no task has an annotation by a Pairwise or a Ranker"):
        read_judgements(empty, file([{**TASK, "annotations": []}], "ls.json"))


# ---- anything else ----


def test_a_file_of_nothing_we_know(empty, file):
    with pytest.raises(DataError, match=r"the columns \(text, label\) hold no judgements we can read"):
        read_judgements(empty, file([{"text": "x", "label": "y"}]))


def test_a_bad_row_keeps_nothing_of_its_file(empty, file):
    rows = [{"prompt": "1", "chosen": "a", "rejected": "b"}, {"prompt": "2", "chosen": "a", "rejected": None}]
    with pytest.raises(DataError, match=r"given\.jsonl:2"):
        read_judgements(empty, file(rows))
    assert (empty.prompts(), empty.judgements()) == ([], [])


def test_a_bad_task_keeps_nothing_of_its_file(empty, file):
    """Found when the first task has been kept already."""
    odd = {"id": 2, "data": {"only": "x"}, "annotations": [pairwise("left")]}
    with pytest.raises(DataError, match="which columns were compared can't be told from only"):
        read_judgements(empty, file([{**TASK, "annotations": [pairwise("left")]}, odd], "ls.json"))
    assert (empty.prompts(), empty.completions(), empty.judgements()) == ([], [], [])
