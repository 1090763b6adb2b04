"""1,000 judgements through the ranking page by a scripted browser: is any lost, and what does one cost the server?

    python benchmarks/ranking.py [--judgements 1000] [--completions 4] [--kills 3]

A headless Chromium ranks by keyboard as a person would, only faster: number keys, then Enter, then the next sheet. For
each judgement it asks twice: the form (POST, kept on the disk before it is answered) and the next page (GET). The
server is killed (SIGKILL) a few times on the way and started anew. At the end every ranking that the page acknowledged
must be in the store exactly as it was typed. Server-side time is taken inside the server process, around everything
including the guard, and is the sum of the two requests.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

WORDS = [*"aeiou", "the", "film", "tea", "house", "river", "because", "never", "small", "bright", "they", "was", "of"]


def fill(path: Path, prompts: int, completions: int) -> None:
    """A store of prompts with completions of 20 to 120 words."""
    from tunewright.data.judgements import Judgements

    draw = random.Random(0)
    with Judgements.open(path) as store, store.together():
        for number in range(prompts):
            prompt = store.add_prompt(f"Question {number}: {' '.join(draw.choices(WORDS, k=20))}?", f"made:{number}")
            for other in range(completions):
                text = " ".join(draw.choices(WORDS, k=draw.randint(20, 120)))
                store.add_completion(prompt, f"{text} ({number}.{other})", f"model {other}")


class Timed:
    """An ASGI application with a stopwatch; a line per request."""

    def __init__(self, inside: Any, times: Path) -> None:
        self.inside = inside
        self.out = times.open("a", buffering=1)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        start = time.perf_counter()
        await self.inside(scope, receive, send)
        spent = 1000 * (time.perf_counter() - start)
        self.out.write(json.dumps([scope["method"], scope["path"], round(spent, 3)]) + "\n")


def serve(path: Path, times: Path) -> None:
    """In a process of its own: what `rank serve` does, with a stopwatch."""
    from tunewright.data.judgements import Judgements
    from tunewright.web import server
    from tunewright.web.app import ranking_app
    from tunewright.web.desk import Desk

    desk = Desk(Judgements.open(path, create=False), overlap=0.2, annotator="bench")
    place = server.listen("127.0.0.1", 0)
    with suppress(KeyboardInterrupt):
        server.serve(
            place, lambda entrance: Timed(ranking_app(desk, entrance), times), lambda url: print(url, flush=True)
        )


class Server:
    """That process, killed and started again."""

    def __init__(self, path: Path, times: Path) -> None:
        self.command = [sys.executable, __file__, "--serve", str(path), str(times)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http"), "the server didn't start"

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.process.pid, number)
        self.process.wait()


def enter(browser: Any, server: Server) -> None:
    browser.open(server.url)
    browser.until("document.querySelector('.tray .slot') && !location.search")


def judge(browser: Any, draw: random.Random) -> tuple[str, list[list[str]]]:
    """One sheet by keyboard; its prompt and the ranking that was typed, once the next sheet is there."""
    prompt, ids = browser.js("[document.getElementById('main').dataset.prompt, "
                             "[...document.querySelectorAll('[name=shown]')].map(one => one.value)]")  # fmt: skip
    order = draw.sample(range(1, len(ids) + 1), len(ids))
    browser.press(*map(str, order), "Enter")
    browser.until(
        f"(document.getElementById('main').dataset.prompt || '') !== '{prompt}' && "
        "!document.querySelector('form.htmx-request')"
    )
    return prompt, [[ids[number - 1]] for number in order]


def milliseconds(times: Path) -> tuple[list[float], list[float], list[float]]:
    """Per judgement: the form, the page after it, and both."""
    rows = [json.loads(line) for line in times.read_text().splitlines()]
    forms, pages = [], []
    for (method, path, spent), after in zip(rows, [*rows[1:], None], strict=True):
        if (method, path) == ("POST", "/judgements") and after is not None and after[:2] == ["GET", "/"]:
            forms.append(spent)
            pages.append(after[2])
    return forms, pages, [form + page for form, page in zip(forms, pages, strict=True)]


def spread(name: str, values: list[float]) -> dict[str, float]:
    """Median, 99th percentile and worst."""
    worst = sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]
    found = {"median": statistics.median(values), "p99": worst, "max": max(values)}
    return {f"{name}_ms_{at}": round(value, 1) for at, value in found.items()}


def run(count: int, completions: int, kills: int) -> dict[str, Any]:
    """Everything, in a temporary folder."""
    from tests.web.browser import CHROMIUM, Browser
    from tunewright.data.judgements import Judgements

    if CHROMIUM is None:
        raise SystemExit("no Chromium here: this benchmark needs one (Debian: apt install chromium)")
    folder = Path(tempfile.mkdtemp(prefix="tunewright-ranking-"))
    store_path, times = folder / "judgements.db", folder / "times.jsonl"
    fill(store_path, count, completions)
    server, draw, typed = Server(store_path, times), random.Random(1), list[tuple[str, list[list[str]]]]()
    killed_at = {count * (number + 1) // (kills + 1) for number in range(kills)}
    start = time.perf_counter()
    with Browser() as browser:
        browser.size(1280, 900)
        enter(browser, server)
        while len(typed) < count:
            typed.append(judge(browser, draw))
            if len(typed) in killed_at:
                server.kill()
                server.start()
                enter(browser, server)
        seconds = time.perf_counter() - start
        strange = browser.strange
    server.kill(signal.SIGINT)
    with Judgements.open(store_path, create=False) as store:
        kept = [(one.prompt_id, [list(group) for group in one.ranking]) for one in store.judgements()]
    forms, pages, both = milliseconds(times)
    return {
        "judgements": len(typed),
        "kills": kills,
        "lost": sum(one not in kept for one in typed),
        "not_as_typed": len(kept) - sum(one in typed for one in kept),
        "requests_elsewhere": len(strange),
        "seconds": round(seconds, 1),
        **spread("form", forms),
        **spread("page", pages),
        **spread("judgement", both),
    }


def main() -> None:
    """Serve, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgements", type=int, default=1000)
    parser.add_argument("--completions", type=int, default=4)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--serve", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(*given.serve)
    else:
        print(json.dumps(run(given.judgements, given.completions, given.kills)))


if __name__ == "__main__":
    main()
