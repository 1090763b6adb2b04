"""What others wrote is as they published it, with its licence, and everything that pages need is in the package."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

import tunewright.web
from tunewright.web.app import FILES

WEB = Path(tunewright.web.__file__).parent
VENDOR = WEB / "static" / "vendor"
LISTED = tomllib.loads((VENDOR / "vendor.toml").read_text())


@pytest.mark.parametrize("name", LISTED)
def test_a_vendored_file_is_unchanged(name):
    entry = LISTED[name]
    content = (VENDOR / entry["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    licence = (VENDOR / entry["licence_file"]).read_bytes()
    assert hashlib.sha256(licence).hexdigest() == entry["licence_sha256"]
    assert entry["version"] in entry["file"]
    assert entry["version"].encode() in content


def test_every_vendored_file_is_listed():
    named = {entry[key] for entry in LISTED.values() for key in ("file", "licence_file")}
    assert {path.name for path in VENDOR.iterdir()} == named | {"vendor.toml"}


def test_pages_load_files_that_are_there():
    for name in FILES:
        assert (WEB / "static" / name).is_file()
    own = {path.relative_to(WEB / "static").as_posix() for path in (WEB / "static").rglob("*") if path.is_file()}
    assert own - set(FILES) == {"vendor/vendor.toml", "vendor/htmx-LICENSE"}


def test_scripts_and_styles_name_no_other_place():
    """Nothing of ours is fetched, imported or linked from elsewhere; no script is made from text."""
    for path in (WEB / "static" / "page.css", WEB / "static" / "ranking.js", *sorted((WEB / "templates").iterdir())):
        text = path.read_text()
        assert not re.search(r"https?://|@import|url\(", text), path
        if path.suffix == ".js":
            assert not re.search(
                r"innerHTML|insertAdjacentHTML|\beval\(|new Function|document\.write|localStorage", text
            ), path
        if path.suffix == ".j2":
            marked = re.findall(r"\{\{[^}]*\|\s*safe[^}]*\}\}", text)
            assert all("guidelines_html" in one or "aria-current" in one for one in marked), (path, marked)


def test_everything_is_in_the_wheel():
    """Hatch packs what git doesn't ignore, so no rule may hit these."""
    ignored = (WEB.parents[2] / ".gitignore").read_text().split()
    names = {path.name for path in WEB.rglob("*")} | {"vendor", "static", "templates"}
    for rule in ignored:
        assert rule.strip("/") not in names, rule
