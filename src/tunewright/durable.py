"""The one place that writes, syncs, renames and removes: whole or not at all, whatever ends the process or the power.

A file is written beside its place, synced and renamed; a folder likewise, each file of it synced before its name
appears. Below everything that keeps something: checkpoints, the run folder, the model, token arrays. Raises OSError;
`storing` turns that into a sentence. Knows nothing of what it writes.

Each step calls `reached` before and after. It does nothing, and is the fault point at which the kill storm strikes.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.errors import MachineError

if TYPE_CHECKING:
    from torch import Tensor


def reached(point: str) -> None:
    """A fault point, as `after write runs/x/.run.json.writing`; tests put something else in its place."""


@contextmanager
def _step(verb: str, path: Path) -> Generator[None]:
    reached(f"before {verb} {path}")
    yield
    reached(f"after {verb} {path}")


def rename(source: Path, target: Path) -> None:
    """One name for another, replacing what the system lets it replace."""
    reached(f"before rename {source} to {target}")
    source.replace(target)
    reached(f"after rename {source} to {target}")


# ---- files ----


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """The whole file or the old one, never half."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", errors="replace", newline="") as stream:
        stream.writelines([text] if isinstance(text, str) else text)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with whole_file(path) as temporary:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        except SafetensorError as error:
            raise as_os_error(error) from None


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """A name beside the file's to write under; at the end it is synced and takes the file's place."""
    temporary = path.with_name(f".{path.name}.writing")
    try:
        with _step("write", temporary):
            yield temporary
        sync_file(temporary)
        rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """One more line, handed to the system at once; a line that an earlier kill tore stays by itself."""
    with _step("append", path), path.open("ab") as stream:
        torn = stream.tell() > 0 and not _ends_a_line(path)
        stream.write((b"\n" if torn else b"") + line.encode("utf-8", "replace") + b"\n")


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def sync_file(path: Path) -> None:
    """What was written to the file is on the disk."""
    with _step("sync", path):
        _sync(path)


def sync_folder(path: Path) -> None:
    """The names in the folder are on the disk."""
    if os.name == "posix":  # Windows can't open a folder
        with _step("sync", path):
            _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reserve(path: Path) -> None:
    """Take the disk for a file whose size is set: one written through memory can't say later that it is full."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size:
                os.posix_fallocate(stream.fileno(), 0, size)


# ---- folders ----


def make_folder(path: Path) -> None:
    """An empty folder in one that is there; what an earlier start left under this name goes."""
    remove_folder(path)
    with _step("make", path):
        path.mkdir()


def sync_tree(folder: Path) -> None:
    """Every file in the folder and below, then every name."""
    for path in sorted(folder.rglob("*")):
        sync_folder(path) if path.is_dir() else sync_file(path)
    sync_folder(folder)


def put_in_place(written: Path, final: Path) -> None:
    """A folder whose files are synced takes its name; one that had it goes, but not before the new one is there."""
    replaced = final.with_name(f".replaced-{final.name}")
    if final.exists():
        remove_folder(replaced)
        rename(final, replaced)
    rename(written, final)
    sync_folder(final.parent)
    remove_folder(replaced)


def put_back(final: Path) -> None:
    """Where a kill fell between the two renames of `put_in_place`, the replaced folder has its name again."""
    replaced = final.with_name(f".replaced-{final.name}")
    if replaced.is_dir() and not final.exists():
        rename(replaced, final)
        sync_folder(final.parent)
    remove_folder(replaced)


def remove_folder(path: Path) -> None:
    """Take the name away first, then the files: half a folder never has the name of a whole one."""
    if not os.path.lexists(path):
        return
    doomed = path if path.name.startswith(".") else path.with_name(f".removed-{path.name}")
    if doomed is not path:
        shutil.rmtree(doomed, ignore_errors=True)
        rename(path, doomed)
        sync_folder(path.parent)
    with _step("remove", doomed):
        shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """What kills left half written, replaced or removed in this folder: everything whose name says so."""
    for path in sorted(folder.glob(".*")):
        if path.is_dir() and path.name.startswith((".writing-", ".removed-", ".replaced-")):
            remove_folder(path)
        elif path.is_file() and path.name.endswith(".writing"):
            with _step("remove", path), suppress(OSError):
                path.unlink()


# ---- failures in words ----


@contextmanager
def storing(where: Path, what: str = "can't be written", advice: str = "") -> Generator[None]:
    """Turns a failed write into one sentence with exit code 5."""
    try:
        yield
    except MachineError:
        raise
    except OSError as error:
        raise MachineError(f"{what} ({reason(error)}){advice}", where=str(where)) from None


def reason(error: Exception) -> str:
    """`No space left on device`: the system's own words, without numbers and paths."""
    words = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(words).splitlines()[0]


def as_os_error(error: Exception) -> OSError:
    """safetensors' own error as the system's, so that a full disk is one everywhere."""
    found = re.search(r"os error (\d+)", str(error))
    number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number) if found else reason(error))
