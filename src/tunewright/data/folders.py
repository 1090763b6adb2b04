"""Finds the files of the splits in a folder: train.csv, validation.jsonl.gz, test-00000-of-00001.parquet.

Helper of `sources`; looks at names only, and takes no file that lies elsewhere. Names that are no split are left alone,
two files for one split are an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tunewright.data.formats import EXTENSIONS
from tunewright.data.reading import is_data_file
from tunewright.errors import DataError, did_you_mean
from tunewright.scanning.files import is_pickle, why_refused


def split_files(folder: Path, split_names: Mapping[str, str]) -> dict[str, Path]:
    """split -> its file. DataError when there is no train file."""
    files = sorted(entry for entry in folder.iterdir() if is_data_file(entry) and not entry.is_dir())
    found: dict[str, Path] = {}
    for file in files:
        split = split_names.get(_stem(file))
        if split in found:
            both = f"{found[split].name} and {file.name}"
            raise DataError(f"two files for {split}: {both}; keep one, or give the file itself", where=str(folder))
        if split:
            _refuse_odd(file, folder)
            found[split] = file
    if "train" not in found:
        raise DataError(_no_train(files, folder), where=str(folder))
    return found


def _refuse_odd(file: Path, folder: Path) -> None:
    reason = why_refused(file, folder)
    if reason:
        raise DataError(f"{reason}, or give its path" if "link" in reason else reason, where=str(file))


def _stem(file: Path) -> str:
    """reviews/Train-00000-of-00001.parquet -> train"""
    return re.sub(r"-00000-of-00001$", "", file.name.lower().split(".", 1)[0])


def _no_train(files: list[Path], folder: Path) -> str:
    odd = sorted(entry.name for entry in folder.iterdir() if is_pickle(entry) or entry.suffix == ".py")
    if not files and odd:
        what = "a script, which is never run" if odd[0].endswith(".py") else "a pickle, which is never opened"
        return f"the folder holds no data file, only {odd[0]} ({what}); save the rows as JSON Lines or Parquet"
    if not files:
        return f"the folder holds no data file; expected train with one of {', '.join(EXTENSIONS)} (or .gz)"
    names = [file.name for file in files]
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    near = did_you_mean("train", [_stem(file) for file in files])
    return f"the folder has no train file (found {shown}); name one train, or give the file itself.{near}"
