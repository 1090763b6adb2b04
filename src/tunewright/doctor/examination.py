"""Whether this machine can do what will be asked of it: every check, in the order in which they build on each other.

Stands beside the flow: the `doctor` command shows what is found here, nothing else calls it. Changes nothing, leaves no
file, sends nothing but one question to the Hub. What a certain run needs is `plan`'s to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tunewright.doctor import hardware, software
from tunewright.doctor.check import Check
from tunewright.doctor.hub import Hub
from tunewright.doctor.places import base_model, place


def examine(runs: Path = Path("runs")) -> Iterator[Check]:
    """Check after check; about five seconds, most of them for importing torch."""
    yield software.python()
    packages = software.installed()
    yield packages
    if packages.state == "bad":
        return  # nothing below could be imported
    hub = Hub()
    yield from hardware.machine()
    yield hardware.memory()
    from tunewright.stages import cache_folder

    for name, folder in (("runs folder", runs), ("cache folder", cache_folder()), ("hub cache", hub.cache())):
        yield place(name, folder)
    yield base_model()
    yield hub.check()
