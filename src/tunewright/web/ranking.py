"""The page on which people rank: one prompt, its completions blind and shuffled, and what they said kept.

Handlers of `app`'s routes. Who wrote a completion never gets here. The order is a function of person and prompt, so
that a page loaded again looks the same; what was on the page is stored with the judgement. Ranks nothing by itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from tunewright.data.judgement_checks import known_name
from tunewright.data.judgement_records import Completion, Judgement, Prompt
from tunewright.errors import UsageError
from tunewright.web.desk import Answer, Call, Desk, Move, Page, pace
from tunewright.web.forms import Filled, filled, places_of

MOST_SHOWN = 9  # one number key each; of more, each person gets nine


def shuffled(completions: Sequence[Completion], annotator: str, prompt_id: str) -> list[Completion]:
    """In the order of a hash with the person's name: as good as random, and the same whenever it is asked for."""

    def key(completion: Completion) -> bytes:
        return hashlib.sha256(json.dumps([annotator, prompt_id, completion.id]).encode()).digest()

    return sorted(completions, key=key)[:MOST_SHOWN]


# ---- shown ----


def sheet(desk: Desk, call: Call) -> Answer:
    """The next prompt to judge, or the end."""
    if not call.annotator:
        return Move("/name", {"annotator": None})
    prompt = desk.store.next_task(call.annotator, desk.overlap)
    if prompt is None:
        return Page("finished.html.j2", {"prompt": None, "progress": pace(desk, call.annotator)})
    undone = call.query.get("undone")
    before = _withdrawn(desk, prompt.id, call.annotator) if undone == "1" else None
    said = {"1": "Taken back. Judge it again.", "0": "There is nothing to take back."}.get(undone or "", "")
    return Page("sheet.html.j2", _sheet_values(desk, call, prompt, before=before) | {"said": said})


def _sheet_values(
    desk: Desk, call: Call, prompt: Prompt, *, before: Judgement | None = None, given: Filled | None = None
) -> dict[str, Any]:
    """What is on the page; `before` was taken back and `given` wasn't accepted, so both are filled in again."""
    found = {completion.id: completion for completion in desk.store.completions(prompt.id)}
    if given is not None and set(given.shown) <= found.keys():
        cards, places = [found[id] for id in given.shown], list(given.places)
    else:
        cards = shuffled(list(found.values()), call.annotator, prompt.id)
        places = places_of([card.id for card in cards], before.ranking if before else ())
    return {
        "annotator": call.annotator,
        "prompt": {"id": prompt.id, "text": prompt.text},
        "completions": [{"id": c.id, "text": c.text, "place": p} for c, p in zip(cards, places, strict=True)],
        "both_bad": given.both_bad if given else bool(before and before.all_bad),
        "note": given.note if given else before.note if before else "",
        "served": round(desk.now(), 3),
        "progress": pace(desk, call.annotator),
        "said": "",
        "problem": "",
    }


def _withdrawn(desk: Desk, prompt_id: str, annotator: str) -> Judgement | None:
    """What this person took back last of this prompt."""
    mine = [
        judgement
        for judgement in desk.store.judgements(withdrawn=True)
        if judgement.withdrawn and judgement.prompt_id == prompt_id and judgement.annotator == annotator
    ]
    return max(mine, key=lambda judgement: (judgement.withdrawn or "", judgement.id), default=None)


# ---- judged ----


def judge(desk: Desk, call: Call) -> Answer:
    """Keep a judgement; what can't be kept comes back as it was filled in, with the reason."""
    if not call.annotator:
        return Move("/name", {"annotator": None})
    given = filled(call.form, desk.now())
    prompt = desk.store.prompt(given.prompt_id)
    try:
        number = _record(desk, call, given)
    except UsageError as error:
        values = _sheet_values(desk, call, prompt, given=given)
        return Page("sheet.html.j2", values | {"problem": error.message}, 422)
    return Move("/", {"judgement": number})


def _record(desk: Desk, call: Call, given: Filled) -> int:
    ranking = given.ranking()
    return desk.store.record(
        given.prompt_id, call.annotator, given.shown, ranking, given.flags, given.note, given.seconds
    )


def undo(desk: Desk, call: Call) -> Answer:
    """Take the newest judgement back; its prompt is the next one."""
    if not call.annotator:
        return Move("/name", {"annotator": None})
    prompt_id = desk.store.undo(call.annotator)
    return Move(f"/?undone={int(prompt_id is not None)}", {"prompt": prompt_id})


# ---- who judges ----


def name_page(desk: Desk, call: Call) -> Answer:
    """Ask who is judging."""
    return Page("name.html.j2", {"annotator": call.annotator or None, "problem": ""})


def take_name(desk: Desk, call: Call) -> Answer:
    """Remember a name in this browser."""
    given = call.form.one("name")
    try:
        name = known_name(given)
    except UsageError as error:
        return Page("name.html.j2", {"annotator": call.annotator or None, "problem": error.message}, 422)
    return Move("/", {"annotator": name}, annotator=name)
