"""The demo's data: movie-review sentences with a clear human rating, as a balanced train and validation file.

`tunewright demo` calls `write_reviews`; `archives` fetches and checks the archive they lie in. Nothing is unpacked to
disk: two nested tars are read in memory, one named member each. Trains nothing and decides nothing about a recipe.

The sentences are those of Pang and Lee's review snippets, rated from -4 to 4 by at least 20 people each for Hutto and
Gilbert, "VADER" (ICWSM 2014), and ship with the vaderSentiment sdist (MIT).
"""

from __future__ import annotations

import hashlib
import html
import io
import json
import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunewright.data.archives import Archive, fetch
from tunewright.errors import DataError

Label = Literal["negative", "positive"]

REVIEWS = Archive(
    project="vaderSentiment",
    version="3.3.2",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
_OUTER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_INNER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_LARGEST_BYTES = 16 << 20  # of a member; both are below 3 MB

# A mean rating this far from 0 is clear: two thirds of the sentences, about as many on either side.
CLEAR_RATING = 1.5
NUM_TRAIN = 2_000
NUM_VALIDATION = 400
SEED = 42

# The article's five sentences, as it spells them, and what a person would say of each.
PROMPTS: dict[str, Label] = {
    "It was good.": "positive",
    "Not a fan, don't recommed.": "negative",
    "Better than the first one.": "positive",
    "This is not worth watching even once.": "negative",
    "This one is a pass.": "negative",
}


@dataclass(frozen=True)
class RatedSentence:
    """A sentence and the mean of its human ratings, from -4 (very negative) to 4."""

    text: str
    rating: float

    @property
    def label(self) -> Label:
        return "positive" if self.rating > 0 else "negative"


@dataclass(frozen=True)
class ReviewFiles:
    """What was written, and out of how much."""

    train: Path
    validation: Path
    num_train: int
    num_validation: int
    num_rated: int  # sentences in the archive
    num_clear: int  # of which this many have a clear rating


def write_reviews(
    folder: Path, *, train: int = NUM_TRAIN, validation: int = NUM_VALIDATION, seed: int = SEED
) -> ReviewFiles:
    """Write train.jsonl and validation.jsonl into a folder; fetches the archive once. Same arguments, same bytes."""
    rated = rated_sentences(fetch(REVIEWS))
    clear = clear_sentences(rated)
    parts = balanced_parts(clear, (train, validation), seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = (folder / "train.jsonl", folder / "validation.jsonl")
    for path, part in zip(paths, parts, strict=True):
        _write_jsonl(path, part)
    return ReviewFiles(*paths, len(parts[0]), len(parts[1]), len(rated), len(clear))


def rated_sentences(archive: Path) -> list[RatedSentence]:
    """Every rated sentence of the archive, in its order."""
    text = _member(_member(archive.read_bytes(), _OUTER, archive.name), _INNER, archive.name).decode("utf-8")
    return [_parse(line, f"{_INNER}:{number}") for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def clear_sentences(sentences: Iterable[RatedSentence], at_least: float = CLEAR_RATING) -> list[RatedSentence]:
    """Those whose rating is clear, each text once."""
    by_text = {sentence.text: sentence for sentence in sentences if abs(sentence.rating) >= at_least}
    return list(by_text.values())


def balanced_parts(sentences: Iterable[RatedSentence], sizes: Iterable[int], seed: int) -> list[list[RatedSentence]]:
    """Disjoint parts, each half negative and half positive, in an order that only seed and texts decide."""
    shuffled = sorted(sentences, key=lambda sentence: _lot(sentence.text, seed))
    queues = {label: [s for s in shuffled if s.label == label] for label in ("negative", "positive")}
    parts = []
    for size in sizes:
        part = [sentence for queue in queues.values() for sentence in queue[: size // 2]]
        if len(part) < size // 2 * 2:
            raise DataError(f"not enough clear sentences: expected {size // 2} of each label in a part of {size}")
        queues = {label: queue[size // 2 :] for label, queue in queues.items()}
        parts.append(sorted(part, key=lambda sentence: _lot(sentence.text, seed)))
    return parts


def _lot(text: str, seed: int) -> bytes:
    """A hash to sort by: unlike random.shuffle, the same in every version of Python."""
    return hashlib.sha256(f"{seed}\n{text}".encode()).digest()


def _parse(line: str, where: str) -> RatedSentence:
    """`id<TAB>rating<TAB>sentence`; HTML entities and runs of spaces are undone."""
    fields = line.split("\t")
    if len(fields) != 3:
        raise DataError(f"has {len(fields)} fields; expected id, rating and sentence", where=where)
    return RatedSentence(" ".join(html.unescape(fields[2]).split()), float(fields[1]))


def _member(archive: bytes, name: str, where: str) -> bytes:
    """The content of one plain file of a .tar.gz held in memory."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            entry = tar.getmember(name)
            stream = tar.extractfile(entry) if entry.isfile() and entry.size <= _LARGEST_BYTES else None
            if stream is None:
                raise DataError(f"{name} is not a plain file of at most {_LARGEST_BYTES:,} bytes", where=where)
            return stream.read()
    except KeyError:
        raise DataError(f"holds no {name}", where=where) from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"is not a .tar.gz that can be read ({error})", where=where) from None


def _write_jsonl(path: Path, sentences: Iterable[RatedSentence]) -> None:
    rows = ({"text": s.text, "label": s.label, "rating": round(s.rating, 3)} for s in sentences)
    half_written = path.with_name(f".{path.name}.{os.getpid()}")
    half_written.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(half_written, path)
