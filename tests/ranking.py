"""Small stores of judgements for tests: prompts with completions, and people who judge them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunewright.data.judgements import Judgements


def store(path: Path, prompts: int = 4, completions: int = 3) -> Judgements:
    """`prompts` prompts, each with completions a, b, c, … of two models in turn."""
    opened = Judgements.open(path)
    for number in range(prompts):
        prompt = opened.add_prompt(f"Question {number}?", f"prompts.jsonl:{number + 1}", values={"number": number})
        for place in range(completions):
            text = f"Answer {'abcdefghi'[place]} to {number}" + " and more" * place
            opened.add_completion(prompt, text, ("gemma", "run:tuned")[place % 2], {"draw": place})
    return opened


def ids(opened: Judgements, prompt: int = 0) -> tuple[str, list[str]]:
    """Id of the n-th prompt, and those of its completions, a first."""
    prompt_id = opened.prompts()[prompt].id
    return prompt_id, [one.id for one in opened.completions(prompt_id)]


def judge(
    opened: Judgements, who: str, prompt: int, order: str, *, shown: str | None = None, seconds: float | None = None,
    flags: Sequence[str] = (),
) -> int:  # fmt: skip
    """`order` such as "b>a=c"; `shown` such as "cab", the order on the page, alphabetical if not given."""
    prompt_id, known = ids(opened, prompt)
    ranking = [[known["abcdefghi".index(c)] for c in tier.split("=")] for tier in order.split(">")] if order else []
    letters = shown or "".join(sorted(c for c in order if c.isalpha())) or "abcdefghi"[: len(known)]
    places = [known["abcdefghi".index(c)] for c in letters]
    return opened.record(prompt_id, who, places, ranking, flags, seconds=seconds)
