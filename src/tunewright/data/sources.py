"""Opens whatever a person calls "the data" as splits: a file, a folder, a Hub id, or Python objects.

First function of the pipeline. A path that exists wins over a Hub id; of a text file the paragraphs are the rows. Reads
no rows itself (`reading`, `text_files` and `objects` do), and holds nothing out: when there is no validation split,
`splitting` makes one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tunewright.data.examples import Source, Splits
from tunewright.data.files import is_folder
from tunewright.data.folders import split_files
from tunewright.data.hub_datasets import is_hub_id, load_hub_dataset
from tunewright.data.objects import from_dataset, from_frame, from_records
from tunewright.data.reading import is_data_file, open_file
from tunewright.data.text_files import SUFFIX, holds_text, is_text, text_documents, text_splits
from tunewright.errors import DataError, RecipeError, UsageError, did_you_mean

if TYPE_CHECKING:
    import datasets
    import pandas

    Table: TypeAlias = str | Path | list[dict[str, Any]] | datasets.Dataset | pandas.DataFrame
    Data: TypeAlias = Table | datasets.DatasetDict | dict[str, Table]

# Other people's words for our three splits.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
}


def open_data(data: Data, *, validation: Data | None = None, revision: str | None = None) -> Splits:
    """The splits of `data`; `validation`, where given, replaces the validation split."""
    splits = _open(data, revision)
    if validation is None:
        return splits
    held_out = _open(validation, None, alone="validation")
    return Splits(
        splits.train, held_out.validation or held_out.train, splits.test, origin=splits.origin, revision=splits.revision
    )


def _open(data: Any, revision: str | None, alone: str = "train") -> Splits:
    """`alone`: what a single table without a split name is called."""
    if isinstance(data, str) and not data.strip():
        raise UsageError("the name of the data is empty; give a file, a folder or a Hub id", field="data.train")
    if isinstance(data, Path) or (isinstance(data, str) and _is_path(data)):
        if revision is not None:
            says = f'data.revision is "{revision}", and {data} is a path here; a revision is for a Hub dataset'
            raise RecipeError(f"{says}. Leave it out.", field="data.revision")
        return _open_path(Path(data).expanduser(), str(data))
    if isinstance(data, str):
        loaded, commit = load_hub_dataset(data, revision)
        return _open_mapping(loaded, origin=data, revision=commit, others="ignored")
    if isinstance(data, Mapping):
        return _open_mapping(data, others="ignored" if _is(data, "datasets", "DatasetDict") else "refused")
    return Splits(_open_table(data, alone))


def _is_path(text: str) -> bool:
    """Whether to look on disk: it is no Hub id, it is named like a file, or its folder is there."""
    path = Path(text).expanduser()
    return not is_hub_id(text) or is_data_file(path) or path.suffix.lower() == SUFFIX or is_folder(path.parent)


def _open_path(path: Path, origin: str) -> Splits:
    if not is_folder(path):
        return Splits(open_any(path), origin=origin)
    if is_text(path) and not any(map(is_data_file, path.iterdir())):
        opened = text_splits(path, SPLIT_NAMES)
    else:
        opened = {split: open_file(file) for split, file in split_files(path, SPLIT_NAMES).items()}
    return Splits(opened["train"], opened.get("validation"), opened.get("test"), origin=origin)


def open_any(path: Path) -> Source:
    """A data file, or the paragraphs of a text file."""
    return text_documents(path) if holds_text(path) else open_file(path)


def _open_mapping(data: Mapping[Any, Any], *, others: str, origin: str = "", revision: str | None = None) -> Splits:
    """Splits by name. A dataset may have others than we use; in a person's own dict they are a mistake."""
    opened: dict[str, Source] = {}
    for name, table in data.items():
        split = SPLIT_NAMES.get(str(name).lower())
        if split in opened:
            raise DataError(f'"{name}" is a second {split} split; give one', where=origin or None, field=str(name))
        if split:
            opened[split] = _open_table(table, split)
        elif others == "refused":
            raise DataError(_unknown_split(str(name), table), field=str(name))
    if "train" not in opened:
        found = ", ".join(map(str, data)) or "none"
        raise DataError(f"there is no train split (found: {found})", where=origin or None, field="train")
    return Splits(opened["train"], opened.get("validation"), opened.get("test"), origin=origin, revision=revision)


def _open_table(data: Any, name: str) -> Source:
    if isinstance(data, str | Path):
        return open_any(Path(data).expanduser())
    if isinstance(data, list | tuple):
        return from_records(data, name)
    if _is(data, "datasets", "Dataset"):
        return from_dataset(data, name)
    if _is(data, "pandas", "DataFrame"):
        return from_frame(data, name)
    expected = "a path, a Hub id, a list of dicts, a DataFrame, or a Dataset with all its rows"
    raise UsageError(f"data of type {type(data).__name__} can't be read; expected {expected}")


def _is(data: object, library: str, name: str) -> bool:
    """isinstance() without importing a library that nobody has used yet."""
    loaded = sys.modules.get(library)
    return loaded is not None and isinstance(data, getattr(loaded, name))


def _unknown_split(name: str, table: Any) -> str:
    is_column = isinstance(table, list) and not any(isinstance(value, Mapping) for value in table)
    known = ("train", "validation", "test")
    advice = " For columns give a list of dicts or a DataFrame." if is_column else did_you_mean(name, known)
    return f'"{name}" is no split; expected train, validation, test.{advice}'
