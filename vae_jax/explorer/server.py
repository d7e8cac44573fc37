"""Serves a run's page on this machine, with audio from wherever the manifest says that it lies.

There are two addresses: the page, and `audio/ROW` for a track that is on it. A page of too many
tracks to hold all that is known of them has four more, for its data and its questions. No name of
a file is ever taken from a request. A request for another host is refused, as another site's page
could make one, and beyond this machine an address needs the token.
"""

import mimetypes
import re
import secrets
import signal
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from vae_jax import extras
from vae_jax.errors import UserError
from vae_jax.explorer import data, packing
from vae_jax.explorer.page import render, rendered_policy

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from vae_jax.api import Results

Answer = Callable[["Request"], "Response"]
LOCAL = ("127.0.0.1", "localhost", "[::1]")
ALONE = {"Content-Security-Policy": "default-src 'none'; sandbox"}  # if it were opened as a page
SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def serve(run: "Results", host: str, port: int) -> None:
    """Serve a run until the process is told to stop; say where.

    Raises
    ------
    UserError
        If the extra `serve` is not installed, or the address cannot be taken.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise UserError(
            f"--serve needs starlette and uvicorn: {extras.command('serve')}."
        ) from error
    is_local = _is_local(host)
    token = "" if is_local else secrets.token_urlsafe(16)
    try:
        taken = socket.create_server((host, port), family=_family(host))
    except OSError as error:
        raise UserError(f"cannot serve at {host}:{port}: {error.strerror}.") from error
    server = uvicorn.Server(
        uvicorn.Config(application(run, token), log_level="warning", access_log=False)
    )
    query = f"?token={token}" if token else ""
    shown = f"[{host}]" if ":" in host else host
    print(f"serving http://{shown}:{taken.getsockname()[1]}/{query} (Ctrl-C stops)", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # uvicorn raises the signal again once it has ended
    server.run(sockets=[taken])


def application(run: "Results", token: str = "") -> "Starlette":
    """Return what answers requests; every one must bring the token, if there is one."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse
    from starlette.routing import Route

    page = data.collect(run, run.outdir, asks=len(run.ids) > data.LIMIT)
    ids = [run.ids[row] for row in page.rows]
    if page.text.get("audio"):
        tracks = [_file(run, id_) for id_ in ids]
        page.text["audio"] = [f"./{path.name}" if path else "" for path in tracks]
    page.text["served"] = True
    content = render(page)
    policy = {"Content-Security-Policy": f"{rendered_policy(page.asks)}; frame-ancestors 'none'"}

    def show(_: "Request") -> "Response":
        return HTMLResponse(content, headers=SAFE | policy)

    def play(request: "Request") -> "Response":
        row = request.path_params["row"]
        path = _file(run, ids[row]) if row < len(ids) else None
        if path is None or not path.is_file():
            return PlainTextResponse("There is no such audio.", 404, SAFE)
        return FileResponse(path, headers=SAFE | ALONE, media_type=_media_type(path))

    answers = {"/": show, "/audio/{row:int}": play} | (_answers(run, page) if page.asks else {})
    return Starlette(
        routes=[Route(path, _guarded(answer, token)) for path, answer in answers.items()],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=["*"] if token else [*LOCAL, "::1"])
        ],
    )


def _guarded(answer: Answer, token: str) -> Answer:
    """Return the same for those who bring the token."""
    from starlette.responses import PlainTextResponse

    def guarded(request: "Request") -> "Response":
        given = request.query_params.get("token", "")
        if secrets.compare_digest(given.encode(), token.encode()):
            return answer(request)
        return PlainTextResponse("The address lacks its token.", 403, SAFE)

    return guarded


def _answers(run: "Results", page: packing.Page) -> dict[str, Answer]:
    """Return what answers the questions of a page that asks, by path."""
    from starlette.responses import JSONResponse, PlainTextResponse, Response

    from vae_jax.explorer.asked import Answers

    answers = Answers(run, page)

    def about(request: "Request") -> "Response":
        rows = re.findall(r"\d{1,9}", request.query_params.get("rows", ""))
        return JSONResponse(answers.about(map(int, rows)), headers=SAFE | ALONE)

    def near(request: "Request") -> "Response":
        row = request.path_params["row"]
        if row >= len(page.rows):
            return PlainTextResponse("There is no such track.", 404, SAFE)
        return JSONResponse(answers.near(row), headers=SAFE | ALONE)

    def find(request: "Request") -> "Response":
        found = answers.find(request.query_params.get("words", ""))
        return Response(found, headers=SAFE | ALONE, media_type="application/octet-stream")

    packed = packing.pack(page.text, page.arrays)

    def whole(_: "Request") -> "Response":
        return Response(packed, headers=SAFE | ALONE, media_type="application/octet-stream")

    return {"/data": whole, "/about": about, "/near/{row:int}": near, "/find": find}


def _file(run: "Results", id_: str) -> Path | None:
    row = run.rows.get(id_)
    place = None if row is None else run.manifest[row].audio_path
    return place.absolute() if isinstance(place, Path) else None


def _media_type(path: Path) -> str:
    """Return the type of audio; what a name takes for anything else is shown by no browser."""
    guessed, _ = mimetypes.guess_type(path.name)
    return guessed if guessed and guessed.startswith("audio/") else "application/octet-stream"


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
