"""`tunewright rank serve`: the page on which people rank, served until Ctrl-C.

Thin: opens the store, hands it to `web`, says the address once the guard has been tried. Nothing else is printed.
"""

from __future__ import annotations

import shlex
import signal
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from tunewright.cli.options import Quiet
from tunewright.errors import StoppedError, UsageError

if TYPE_CHECKING:
    from tunewright.data.judgements import Judgements
    from tunewright.web.server import Place

_LOOPBACK = "127.0.0.1"


def serve(
    database: Annotated[Path, typer.Argument(metavar="DB", help="The store that `rank sample` or `rank import` made.")],
    port: Annotated[
        int | None, typer.Option(metavar="N", min=0, max=65535, help="Port; default: the first free one from 8765.")
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="H", help="Address to listen on. Another than 127.0.0.1 lets a network in.")
    ] = _LOOPBACK,
    annotator: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who judges, so that the page needn't ask.")
    ] = None,
    guidelines: Annotated[
        Path | None, typer.Option(metavar="FILE", help="How to judge, shown beside: text, or Markdown (.md).")
    ] = None,
    overlap: Annotated[
        float, typer.Option(metavar="SHARE", min=0.0, max=1.0, help="Share of the prompts that two people judge.")
    ] = 0.2,
    write: Annotated[bool, typer.Option("--write", help="People also write completions, or correct some.")] = False,
    quiet: Quiet = False,
) -> None:
    """Rank completions in a browser: blind, shuffled, by keyboard alone; every judgement is saved at once.

    Only this machine gets in, and only by the address printed, which is new at each start. --host lets others in.
    """
    from tunewright.data.judgement_checks import known_name
    from tunewright.data.judgements import Judgements
    from tunewright.web.app import ranking_app
    from tunewright.web.desk import Desk
    from tunewright.web.server import listen
    from tunewright.web.server import serve as run
    from tunewright.web.showing import guidelines_html, read_guidelines

    text = read_guidelines(guidelines) if guidelines else ""
    with Judgements.open(database, create=False) as store:
        desk = Desk(
            store,
            overlap=overlap,
            guidelines=text,
            guidelines_html=guidelines_html(text, markdown=guidelines is not None and guidelines.suffix == ".md"),
            writes=write,
            store_name=shlex.quote(str(database)),
            annotator=None if annotator is None else known_name(annotator),
        )
        place = listen(host, port)
        with closing(place.listening):
            if annotator is not None and not place.is_loopback:
                several = "names one person, and --host lets several in; leave it out, and the page asks each"
                raise UsageError(several, field="--annotator")
            before = len(store.judgements())
            signal.signal(signal.SIGTERM, _terminated)
            try:
                run(place, lambda entrance: ranking_app(desk, entrance), lambda url: _opened(url, place, store, quiet))
            finally:
                more = len(store.judgements()) - before
                if not quiet:
                    print(f" {more:,} judgement{'' if more == 1 else 's'} more; all are saved in {database}")


def _opened(url: str, place: Place, store: Judgements, quiet: bool) -> None:
    """Where to go, and who may come."""
    if quiet:
        print(url, flush=True)
        return
    progress = store.progress("nobody")
    judged = f"{progress.prompts_judged:,} judged" if progress.prompts_judged else "none judged yet"
    print(f" {progress.prompts:,} prompts to rank, {judged}")
    if not place.is_loopback:
        print(" whoever has this address gets in, and the network can read along: use it where you trust the network")
    print(f" open  {url}\n Ctrl-C ends it", flush=True)


def _terminated(number: int, _: object) -> NoReturn:
    """The server has answered what was under way; the exit code says why it ended."""
    raise StoppedError("stopped by a signal", signal_number=number)
