"""Text files as rows: a document per file of a folder, or per paragraph (or line) of a file.

What plain text is read from; `written` then takes the rows like any others. Streams nothing: a file is held while its
paragraphs are found.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tunewright.data import files
from tunewright.data.examples import Row, Source
from tunewright.data.formats import refuse_foreign
from tunewright.errors import DataError

SUFFIX = ".txt"
_OURS = re.compile(r'PAR1|\{\s*["}]|\[\s*\{')  # Parquet, JSON Lines and a JSON array may have a wrong name


@dataclass(eq=False)
class TextDocuments:
    """Text files as rows with one column, `text`: a document per file of a folder, or per paragraph of a file."""

    name: str
    paths: tuple[Path, ...]
    by_paragraph: bool
    opened: tuple[files.Stamp, ...] = field(repr=False)

    def rows(self) -> Iterator[Row]:
        """Every document, in order. DataError names file and line."""
        self._check_unchanged()
        texts = itertools.chain.from_iterable(map(self._texts, self.paths))
        number = -1
        for number, (text, where) in enumerate(texts):
            yield Row({"text": text}, where, number)
        if number < 0:
            raise DataError("holds only blank lines; expected text", where=self.name)
        self._check_unchanged()

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the content."""
        digest = hashlib.sha256()
        for path in self.paths:
            with files.read_errors(str(path)), files.open_binary(path, gzipped=False) as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())  # type: ignore[arg-type]
        return digest.hexdigest()

    def _texts(self, path: Path) -> Iterator[tuple[str, str]]:
        with files.read_errors(str(path)), files.open_binary(path, gzipped=False) as stream:
            lines = list(files.numbered_lines(stream, path.name))
        text = "".join(line for _, line in lines).strip()
        if not self.by_paragraph:
            return iter([(text, path.name)] if text else [])
        return _paragraphs(lines, path.name, by_line=not re.search(r"\n[^\S\n]*\n", text))

    def _check_unchanged(self) -> None:
        for path, stamp in zip(self.paths, self.opened, strict=True):
            if files.stamp(path) != stamp:
                raise DataError("changed while it was being used; start again when it is complete", where=str(path))


def is_text(path: Path | str) -> bool:
    """Whether this is a .txt file by its name, or a folder with one."""
    path = Path(path).expanduser()
    return bool(_text_files(path)) if files.is_folder(path) else path.suffix.lower() == SUFFIX


def holds_text(path: Path) -> bool:
    """Whether a .txt file holds text, not data that `reading` knows by its content. DataError for what is neither."""
    if path.suffix.lower() != SUFFIX:
        return False
    files.stamp(path)
    if files.is_gzip(path):
        return False
    sample = files.read_sample(path, gzipped=False)
    if _OURS.match(sample.decode("utf-8", "replace").removeprefix(files.BOM).lstrip()):
        return False
    refuse_foreign(sample, str(path))
    return True


def text_documents(path: Path | str) -> TextDocuments:
    """A .txt file: a document per paragraph (or per line, where no line is blank). A folder: a document per file."""
    path = Path(path).expanduser()
    folder = files.is_folder(path)
    found = _text_files(path) if folder else [path]
    if not found:
        raise DataError("the folder holds no .txt file", where=str(path))
    return TextDocuments(path.name, tuple(found), not folder, tuple(map(files.stamp, found)))


def text_splits(folder: Path, split_names: Mapping[str, str]) -> dict[str, Source]:
    """A folder with a train.txt has its splits in files, like any other data; every other one is its documents."""
    named: dict[str, Source] = {}
    for path in _text_files(folder):
        split = split_names.get(path.stem.lower())
        if split in named:
            both = f"{named[split].name} and {path.name}"
            raise DataError(f"two files for {split}: {both}; keep one, or give the file itself", where=str(folder))
        if split:
            named[split] = text_documents(path)
    if "train" not in named:
        return {"train": text_documents(folder)}
    return named


def _text_files(folder: Path) -> list[Path]:
    there = (entry for entry in folder.iterdir() if entry.suffix.lower() == SUFFIX and entry.is_file())
    return sorted(entry for entry in there if not entry.is_symlink())


def _paragraphs(lines: list[tuple[int, str]], name: str, *, by_line: bool) -> Iterator[tuple[str, str]]:
    for key, group in itertools.groupby(lines, key=lambda line: line[1].strip() and (line[0] if by_line else "a line")):
        if key:
            block = list(group)
            yield "".join(line for _, line in block).strip("\r\n"), f"{name}:{block[0][0]}"
