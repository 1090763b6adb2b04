"""The demo's data, out of an archive made here; and the real one where it has been fetched before."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from tunewright.data import archives, reviews
from tunewright.data.reviews import RatedSentence, balanced_parts, clear_sentences, rated_sentences, write_reviews
from tunewright.errors import DataError

LINES = [
    "1\t2.26666666667\tA treat   from start to finish.",
    "2\t-3.1\tDull &amp; loud.",
    "3\t0.4\tA film.",
    "",
    "4\t-1.5\tIt's thin, Ji\u0159\u00ed.",
]


def packed(files: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.type = len(content), kind
            entry.linkname = "/etc/hostname" if kind == tarfile.SYMTYPE else ""
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def archive_at(path, lines=LINES, **options):
    inner = packed({reviews._INNER: "\n".join(lines).encode()}, **options)
    path.write_bytes(packed({reviews._OUTER: inner}))
    return path


def test_sentences_and_ratings(tmp_path):
    assert rated_sentences(archive_at(tmp_path / "a.tar.gz")) == [
        RatedSentence("A treat from start to finish.", 2.26666666667),
        RatedSentence("Dull & loud.", -3.1),
        RatedSentence("A film.", 0.4),
        RatedSentence("It's thin, Ji\u0159\u00ed.", -1.5),
    ]


def test_only_clear_ratings_are_kept_and_each_text_once(tmp_path):
    sentences = rated_sentences(archive_at(tmp_path / "a.tar.gz", [*LINES, LINES[0]]))
    assert [(s.text[:4], s.label) for s in clear_sentences(sentences)] == [
        ("A tr", "positive"),
        ("Dull", "negative"),
        ("It's", "negative"),
    ]


def test_a_link_in_the_place_of_the_text_is_not_followed(tmp_path):
    with pytest.raises(DataError, match="not a plain file"):
        rated_sentences(archive_at(tmp_path / "a.tar.gz", kind=tarfile.SYMTYPE))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"no archive", "can't be read|not a .tar.gz"), (packed({"other": b""}), "holds no")],
    ids=["no archive", "another archive"],  # of its own accord the id would hold bytes with the time in them
)
def test_an_archive_that_is_something_else(tmp_path, content, words):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        rated_sentences(path)


def test_a_line_with_too_few_fields(tmp_path):
    with pytest.raises(DataError, match=r"GroundTruth\.txt:2: has 2 fields"):
        rated_sentences(archive_at(tmp_path / "a.tar.gz", [LINES[0], "5\t1.0"]))


SENTENCES = [RatedSentence(f"sentence {i}", 2.0 if i % 3 else -2.0) for i in range(60)]


def test_parts_are_balanced_disjoint_and_decided_by_the_seed():
    train, validation = balanced_parts(SENTENCES, (20, 10), seed=1)
    for part, size in ((train, 20), (validation, 10)):
        assert [s.label for s in part].count("positive") == size // 2 == len(part) // 2
    assert not {s.text for s in train} & {s.text for s in validation}
    assert balanced_parts(reversed(SENTENCES), (20, 10), seed=1) == [train, validation]
    assert balanced_parts(SENTENCES, (20, 10), seed=2) != [train, validation]
    assert [s.label for s in train] != sorted(s.label for s in train)


def test_too_few_clear_sentences():
    with pytest.raises(DataError, match="not enough clear sentences"):
        balanced_parts(SENTENCES, (40, 10), seed=1)


def test_files_are_the_same_bytes_each_time(tmp_path, monkeypatch):
    lines = [f"{i}\t{2.0 if i % 2 else -2.0}\tsentence number {i}" for i in range(40)]
    archive = archive_at(tmp_path / "a.tar.gz", lines)
    monkeypatch.setattr(reviews, "fetch", lambda _: archive)
    files = write_reviews(tmp_path / "one", train=20, validation=10)
    again = write_reviews(tmp_path / "two", train=20, validation=10)
    assert (files.num_train, files.num_validation, files.num_rated, files.num_clear) == (20, 10, 40, 40)
    assert files.train.read_bytes() == again.train.read_bytes()
    assert files.validation.read_bytes() == again.validation.read_bytes()
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["train.jsonl", "validation.jsonl"]
    row = json.loads(files.train.read_text().splitlines()[0])
    assert row.keys() == {"text", "label", "rating"}
    assert (row["rating"] > 0) == (row["label"] == "positive")


def test_the_real_sentences(tmp_path):
    kept = archives.cache_folder() / "archives" / reviews.REVIEWS.file_name
    if not kept.is_file():
        pytest.skip("the demo's archive hasn't been fetched on this machine")
    files = write_reviews(tmp_path)
    assert files.num_rated == 10_605
    assert files.num_train == len(files.train.read_text(encoding="utf-8").splitlines()) == 2_000
    assert files.num_clear == 7_077
