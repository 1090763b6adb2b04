"""Which files of a stranger's folder may be opened: regular ones that lie in it, or in the Hub cache's own `blobs`.

First thing that happens to a model, run, checkpoint or data folder. Looks at names and kinds, opens nothing. A link
that leads out of its folder would let a stranger have our files read, pushed to the Hub, or written over.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from tunewright.errors import ModelError

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npz", ".h5", ".msgpack")
# What the libraries open of a model folder; anything else that lies there is never looked at.
READ = (".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken", ".bpe", ".vocab", ".spm")
TEMPLATES = "additional_chat_templates"
HUB_CACHES = ("models--", "datasets--", "spaces--")


def why_refused(path: Path, folder: Path) -> str | None:
    """Why this entry of a folder may not be opened, in a sentence; None when it may."""
    try:
        kind = path.lstat().st_mode
    except OSError:
        return None  # gone meanwhile, as a running run's temporary files are
    try:
        if stat.S_ISLNK(kind):
            target = path.resolve(strict=True)
            if not target.is_relative_to(folder.resolve()) and not _in_blobs(target, folder):
                return "is a symbolic link out of its folder, which is not followed; put the file itself there"
            kind = target.stat().st_mode
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return "is a symbolic link that leads nowhere; put the file itself there"
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        return "is a pipe, a socket or a device; expected a regular file"
    return None


def _in_blobs(target: Path, folder: Path) -> bool:
    """Whether the folder is a snapshot in a Hub cache, and the target one of the files of that very repository."""
    for parent in folder.resolve().parents:
        if parent.name == "snapshots" and parent.parent.name.startswith(HUB_CACHES):
            return target.parent == parent.parent / "blobs"
    return False


def model_files(folder: Path) -> list[Path]:
    """Files of a model folder that something will open, each of them fit to be. Raises ModelError."""
    found = [path for path in _entries(folder) if path.suffix.lower() in READ]
    if (folder / TEMPLATES).is_dir():
        found += [folder / TEMPLATES, *_entries(folder / TEMPLATES)]
    refuse_any(found, folder)
    return [path for path in found if not path.is_dir()]


def scan_run(folder: Path) -> None:
    """Everything in a run folder lies in it: nothing of ours is read or written through a stranger's link."""
    if folder.is_dir():
        refuse_any(_everything(folder), folder)


def refuse_any(paths: Iterator[Path] | list[Path], folder: Path) -> None:
    """Raises ModelError for the first path that may not be opened."""
    for path in paths:
        reason = why_refused(path, folder)
        if reason:
            raise ModelError(reason, where=str(path))


def _everything(folder: Path) -> Iterator[Path]:
    waiting = [folder]
    while waiting:
        for path in _entries(waiting.pop()):
            yield path
            if path.is_dir() and not path.is_symlink():
                waiting.append(path)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ModelError(f"can't be opened ({error.strerror})", where=str(folder)) from None


def is_pickle(path: Path) -> bool:
    """Whether a name is that of a format which can run code when it is opened."""
    return path.suffix.lower() in PICKLES
