"""A store with prompts, and a client that is let in, for tests of the pages."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from tunewright.data.judgements import Judgements
from tunewright.web.app import ranking_app
from tunewright.web.desk import Desk
from tunewright.web.security import Entrance

PORT = 8765
HOST = f"127.0.0.1:{PORT}"
ORIGIN = f"http://{HOST}"
TOKEN = "a-token-of-this-start"
ENTRANCE = Entrance(TOKEN, PORT)
SECRET_ORIGIN = "run:never-to-be-shown"


def store(path: Path, prompts: int = 3, completions: int = 4) -> Judgements:
    """Questions with answers of which each says its number."""
    made = Judgements.open(path)
    for number in range(1, prompts + 1):
        prompt = made.add_prompt(f"Question {number}?", f"prompts.jsonl:{number}", None, {"topic": "tea"})
        for other in range(1, completions + 1):
            made.add_completion(prompt, f"Answer {number}.{other}", f"{SECRET_ORIGIN}-{other}", {"seed": other})
    return made


def client(desk: Desk, annotator: str | None = "Ana", **more: Any) -> TestClient:
    """As a browser that came in by the address, and said its name."""
    made = TestClient(
        ranking_app(desk, ENTRANCE), base_url=ORIGIN, headers={"origin": ORIGIN}, follow_redirects=False, **more
    )
    made.cookies.set(ENTRANCE.cookie, TOKEN)
    if annotator is not None and desk.annotator is None:
        assert made.post("/name", data={"name": annotator}).status_code == 303
    return made


def fields(page: str) -> dict[str, Any]:
    """The ranking form as a browser without scripts would send it, before anything is chosen."""
    found: dict[str, Any] = {}
    form = page[page.index('<form id="ranking"') : page.index("</form>")]
    for kind, name, value in re.findall(r'<input type="(\w+)" name="([\w-]+)" value="([^"]*)"', form):
        if kind == "hidden":
            found.setdefault(name, []).append(unescape(value))
    assert found["prompt"] and found["shown"]
    return found


def places(*given: int) -> dict[str, str]:
    """Radio buttons: the place of the first, second, … completion shown."""
    return {f"place-{number}": str(place) for number, place in enumerate(given, 1) if place}
