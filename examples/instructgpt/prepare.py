"""Write the data of the two chains beside them: real sentences about films, and prompts made of their first words.

    python examples/instructgpt/prepare.py                  for movies.yaml (fetches 2.4 MB once)
    python examples/instructgpt/prepare.py --data FOLDER    for instructions.yaml too

FOLDER holds instructions_{train,validation}.jsonl (Alpaca's columns) and preferences_{train,validation}.jsonl
(`conversations`, `chosen`, `rejected`, or `prompt`, `chosen`, `rejected`): your own, or any public set.

The sentences are split into parts that share none: one teaches the classifier that is the reward, one teaches the
classifier that judges, and of the rest come the prompts.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from tunewright.data.archives import fetch
from tunewright.data.reviews import REVIEWS, RatedSentence, balanced_parts, clear_sentences, rated_sentences

HERE = Path(__file__).parent
SIZES = {"reward_train": 2400, "reward_validation": 300, "judge_train": 2400, "judge_validation": 300, "prompts": 700}
OPENERS = ["The film", "This movie", "The acting", "The plot", "The director", "The story", "The ending", "I think"]
FIRST_WORDS, HELD_OUT = 4, 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with instructions and preferences")
    parser.add_argument("--to", type=Path, default=HERE / "data")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    movies(options.to)
    if options.data:
        for kind in ("instructions", "preferences"):
            for split in ("train", "validation"):
                shutil.copy(options.data / f"{kind}_{split}.jsonl", options.to)
    print(f"wrote {options.to}")


def movies(folder: Path) -> None:
    """Labelled sentences in four parts, and prompts in two."""
    parts = balanced_parts(clear_sentences(rated_sentences(fetch(REVIEWS))), SIZES.values(), seed=7)
    for name, part in zip(SIZES, parts, strict=True):
        if name != "prompts":
            write(folder / f"{name}.jsonl", ({"text": one.text, "label": one.label} for one in part))
    begun = beginnings(parts[-1])
    write(folder / "prompts_validation.jsonl", ({"prompt": text} for text in [OPENERS[0], *begun[:HELD_OUT]]))
    write(folder / "prompts_train.jsonl", ({"prompt": text} for text in [*OPENERS[1:], *begun[HELD_OUT:]]))


def beginnings(sentences: Iterable[RatedSentence]) -> list[str]:
    """The first words of the longer ones, each once."""
    words = (one.text.split() for one in sentences)
    return list(dict.fromkeys(" ".join(some[:FIRST_WORDS]) for some in words if len(some) >= 2 * FIRST_WORDS))


def write(path: Path, rows: Iterable[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
