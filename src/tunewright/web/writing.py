"""The page on which people write a completion themselves, or correct one (`rank serve --write`).

Handlers of `app`'s routes. What they write is a demonstration: `rank export --format demonstrations` makes of it the
prompt–completion pairs that `task: generate` learns from. The completions to begin from are as blind as in `ranking`.
"""

from __future__ import annotations

from typing import Any

from tunewright.data.judgement_records import Demonstration, Prompt, Said
from tunewright.errors import UsageError
from tunewright.web.desk import Answer, Call, Desk, Move, Page, pace
from tunewright.web.ranking import shuffled


def writing_page(desk: Desk, call: Call) -> Answer:
    """The next prompt to write for, or the end. `from`: a completion to begin from; `after`: a prompt to pass over."""
    if not call.annotator:
        return Move("/name", {"annotator": None})
    passed, undone = call.query.get("after", ""), call.query.get("undone", "")
    prompt = _next(desk, call.annotator, passed)
    if prompt is None:
        return Page("written_all.html.j2", {"prompt": None, "progress": pace(desk, call.annotator)})
    before = _withdrawn(desk, prompt.id, call.annotator) if undone == "1" else None
    values = _values(desk, call, prompt, begun_from=call.query.get("from", ""), before=before)
    said = {"1": "Taken back. Write it again.", "0": "There is nothing to take back."}.get(undone, "")
    return Page("writing.html.j2", values | {"said": said, "passed": passed})


def _next(desk: Desk, annotator: str, passed: str) -> Prompt | None:
    """The store's next prompt; where one was passed over, the first after it that this person hasn't written for."""
    if not passed:
        return desk.store.next_to_write(annotator)
    written = {one.prompt_id for one in desk.store.demonstrations() if one.annotator == annotator}
    prompts = desk.store.prompts()
    at = next((number for number, prompt in enumerate(prompts, 1) if prompt.id == passed), 0)
    return next((prompt for prompt in prompts[at:] + prompts[:at] if prompt.id not in written), None)


def _withdrawn(desk: Desk, prompt_id: str, annotator: str) -> Demonstration | None:
    """What this person took back last of this prompt."""
    mine = [
        one
        for one in desk.store.demonstrations(withdrawn=True)
        if one.withdrawn and one.prompt_id == prompt_id and one.annotator == annotator
    ]
    return max(mine, key=lambda one: (one.withdrawn or "", one.id), default=None)


def _values(
    desk: Desk, call: Call, prompt: Prompt, *, begun_from: str = "", before: Demonstration | None = None
) -> dict[str, Any]:
    cards = shuffled(desk.store.completions(prompt.id), call.annotator, prompt.id)
    begun = next((card for card in cards if card.id == begun_from), None)
    text, based_on = (before.text, before.based_on) if before else ("", None)
    return {
        "annotator": call.annotator,
        "prompt": {"id": prompt.id, "text": prompt.text},
        "completions": [{"id": card.id, "text": card.text} for card in cards],
        "based_on": begun.id if begun else based_on,
        "text": as_text(begun.text) if begun else text,
        "progress": pace(desk, call.annotator),
        "passed": "",
        "said": "",
        "problem": "",
    }


def as_text(said: Said) -> str:
    """A completion as one can write it: what its messages say, one after the other."""
    if isinstance(said, str):
        return said
    return "\n\n".join(str(message.get("content") or "") for message in said)


def write(desk: Desk, call: Call) -> Answer:
    """Keep what was written; what can't be kept comes back with the reason."""
    if not call.annotator:
        return Move("/name", {"annotator": None})
    form = call.form
    prompt = desk.store.prompt(form.one("prompt"))
    text, based_on, passed = form.text("text"), form.one("based_on") or None, form.one("passed")
    try:
        number = desk.store.write_demonstration(prompt.id, call.annotator, text, based_on)
    except UsageError as error:
        again = {"text": text, "based_on": based_on, "passed": passed, "problem": error.message}
        return Page("writing.html.j2", _values(desk, call, prompt) | again, 422)
    return Move(f"/write?after={prompt.id}" if passed else "/write", {"demonstration": number})


def undo_writing(desk: Desk, call: Call) -> Answer:
    """Take the newest text back; its prompt is the next one to write for."""
    if not call.annotator:
        return Move("/name", {"annotator": None})
    prompt_id = desk.store.undo_demonstration(call.annotator)
    return Move(f"/write?undone={int(prompt_id is not None)}", {"prompt": prompt_id})
