"""The web application: routes to handlers, answers to HTML or JSON, all of it behind the guard.

`server` runs it. Every page has a JSON twin with the same values, for a program that asks with
`Accept: application/json`. Works without scripts: pages are read with GET, forms sent with POST and answered with 303.
Everything in a template is escaped; nothing on a page is fetched from elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tunewright.errors import MachineError, TunewrightError
from tunewright.web import quality, ranking, showing, writing
from tunewright.web.desk import COOKIE, Answer, Call, Desk, Handler, Move, Page, annotator_of, as_cookie
from tunewright.web.forms import Form, read_form
from tunewright.web.security import Entrance, Guard, wants_json

_A_YEAR = 365 * 24 * 3600
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = ("page.css", "ranking.js", "icon.svg", "vendor/htmx-4.0.1.min.js")

Endpoint = Callable[[Request], Awaitable[Response]]


def ranking_app(desk: Desk, entrance: Entrance) -> Guard:
    """Everything that `rank serve` answers, guarded."""
    pages = _templates()
    routes: list[tuple[str, str, Handler]] = [
        ("GET", "/", ranking.sheet),
        ("POST", "/judgements", ranking.judge),
        ("POST", "/undo", ranking.undo),
        ("GET", "/quality", quality.quality_page),
    ]
    if desk.annotator is None:
        routes += [("GET", "/name", ranking.name_page), ("POST", "/name", ranking.take_name)]
    if desk.writes:
        routes += [
            ("GET", "/write", writing.writing_page),
            ("POST", "/demonstrations", writing.write),
            ("POST", "/demonstrations/undo", writing.undo_writing),
        ]
    files = {name: _file(name) for name in FILES}
    app = Starlette(
        routes=[
            *(Route(path, _endpoint(handler, desk, pages), methods=[method]) for method, path, handler in routes),
            *(Route(f"/static/{name}", _static(file), methods=["GET"]) for name, file in files.items()),
        ],
        exception_handlers=dict.fromkeys((HTTPException, TunewrightError, Exception), _problem(desk, pages)),
    )
    app.router.redirect_slashes = False
    return Guard(app, entrance)


# ---- a request to a handler, its answer to a response ----


def _endpoint(handler: Handler, desk: Desk, pages: Environment) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        form = await read_form(request) if request.method == "POST" else Form()
        annotator = annotator_of(request.cookies.get(COOKIE), desk)
        call = Call(dict(request.query_params), form, annotator)
        answer = await run_in_threadpool(handler, desk, call)
        return _response(answer, request, desk, pages)

    return endpoint


def _response(answer: Answer, request: Request, desk: Desk, pages: Environment) -> Response:
    if wants_json(request.headers.getlist("accept")):
        status = answer.status if isinstance(answer, Page) else 200
        response: Response = JSONResponse(dict(answer.values), status)
    elif isinstance(answer, Move):
        response = RedirectResponse(answer.place, 303)
    else:
        values = dict(answer.values)
        html = pages.get_template(answer.template).render(desk=desk, path=request.url.path, **values)
        response = HTMLResponse(html, answer.status)
    if isinstance(answer, Move) and answer.annotator is not None:
        name = as_cookie(answer.annotator)
        response.set_cookie(COOKIE, name, max_age=_A_YEAR, path="/", httponly=True, samesite="strict")
    return response


def _problem(desk: Desk, pages: Environment) -> Callable[[Request, Exception], Awaitable[Response]]:
    """What went wrong as a page, or as the object that commands print; never a traceback."""

    async def answer(request: Request, error: Exception) -> Response:
        status, code, sentence = _in_words(error)
        problem = {"code": code, "message": sentence}
        page = Page("problem.html.j2", {"error": problem}, status)
        response = _response(page, request, desk, pages)
        if isinstance(error, HTTPException):
            response.headers.update(error.headers or {})
        return response

    return answer


def _in_words(error: Exception) -> tuple[int, str, str]:
    if isinstance(error, HTTPException):
        sentence = {404: "There is no such page.", 405: "This page doesn't answer that."}.get(error.status_code)
        return error.status_code, "usage", sentence or str(error.detail)
    if isinstance(error, MachineError):
        return 503, error.code, f"Not saved. {error}"
    if isinstance(error, TunewrightError):
        return 400, error.code, str(error)
    return 500, "bug", f"{type(error).__name__}: this is our mistake. The terminal shows more."


# ---- templates and files ----


def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("tunewright.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= showing.FILTERS
    files: Any = {name: f"/static/{name}?{_file(name).version}" for name in FILES}
    found.globals["file"] = files
    return found


@dataclass(frozen=True)
class _File:
    """A file of ours that pages load; its name and nothing else chooses it, so that no path can lead elsewhere."""

    content: bytes
    kind: str
    version: str


def _file(name: str) -> _File:
    content = resources.files("tunewright.web").joinpath("static", *name.split("/")).read_bytes()
    kind = _TYPES[name[name.rindex(".") :]]
    return _File(content, kind, hashlib.sha256(content).hexdigest()[:12])


def _static(file: _File) -> Endpoint:
    """The version is part of the address, so a browser need not ask again."""
    headers: dict[str, Any] = {"cache-control": "private, max-age=31536000, immutable"}

    async def endpoint(request: Request) -> Response:
        return Response(file.content, media_type=file.kind, headers=headers)

    return endpoint
