"""Python and the packages: what is installed, what tunewright asks for, what it was tested with.

Part of `examination`, and its first part: imports none of those packages.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from tunewright.doctor.check import Check, State

PACKAGE = "tunewright"
NAMED = ("torch", "transformers", "peft")  # the libraries that decide a run's numbers


def python() -> Check:
    bits = 64 if sys.maxsize > 2**32 else 32
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    if bits == 32:
        return Check("python", "bad", f"{found}, 32 bits", "install a 64-bit Python; torch needs one")
    return Check("python", "ok", found)


def installed() -> Check:
    """The packages that tunewright declares, against the versions that it asks for and those it was tested with."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in importlib.metadata.requires(PACKAGE) or ()]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    versions = {one.name: _version(one.name) for one in wanted}
    missing = [one for one in wanted if versions[one.name] is None]
    wrong = [
        one for one in wanted if (have := versions[one.name]) and not one.specifier.contains(have, prereleases=True)
    ]
    named = ", ".join(f"{name} {versions[name]}" for name in NAMED if versions.get(name))
    if missing or wrong:
        told = [f"{one.name} is missing" for one in missing] + [
            f"{one.name} is {versions[one.name]}, expected {one.specifier}" for one in wrong
        ]
        quoted = " ".join(f"'{one.name}{one.specifier}'" for one in missing + wrong)
        state: State = "bad" if missing else "warn"
        return Check("packages", state, "; ".join(told), f"pip install {quoted}", {"versions": versions})
    return Check(
        "packages", "ok", f"{len(wanted)} as required: {named}{_untested(versions)}", "", {"versions": versions}
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _untested(versions: Mapping[str, str | None]) -> str:
    """Versions other than those of constraints.txt, which every release is tested with."""
    tested = tested_versions()
    others = [
        f"{name} {tested[name]}" for name in NAMED if name in tested and _release(versions.get(name)) != tested[name]
    ]
    return f" (tested with {', '.join(others)})" if others else ""


def _release(version: str | None) -> str:
    """2.13.0 of 2.13.0+cpu."""
    return (version or "").partition("+")[0]


def tested_versions() -> dict[str, str]:
    """Package -> version, from the copy that comes with the package or, in a checkout, from its root."""
    here = Path(__file__).resolve()
    for path in (here.parents[1] / "constraints.txt", here.parents[3] / "constraints.txt"):
        if path.is_file():
            pairs = (line.split("==") for line in path.read_text(encoding="utf-8").split() if "==" in line)
            return {name.lower().replace("_", "-"): version for name, version in pairs}
    return {}
