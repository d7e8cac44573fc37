"""Serves a run's page on this machine, with audio from wherever the manifest says that it lies.

There are two addresses: the page, and `audio/ROW` for a track that is on it. No name of a file is
ever taken from a request. A request for another host is refused, as another site's page could make
one, and beyond this machine an address needs the token.
"""

import mimetypes
import secrets
import signal
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from vae_jax import extras
from vae_jax.errors import UserError
from vae_jax.explorer import data
from vae_jax.explorer.page import render, rendered_policy

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from vae_jax.api import Results

LOCAL = ("127.0.0.1", "localhost", "[::1]")
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

    page = data.collect(run, run.outdir)
    tracks = [_file(run, id_) for id_ in page.text["ids"]]
    if any(tracks):
        page.text["audio"] = [f"./{path.name}" if path else "" for path in tracks]
    page.text["served"] = True
    content = render(page)
    policy = {"Content-Security-Policy": f"{rendered_policy()}; frame-ancestors 'none'"}

    def refused(request: "Request") -> "Response | None":
        given = request.query_params.get("token", "")
        if secrets.compare_digest(given.encode(), token.encode()):
            return None
        return PlainTextResponse("The address lacks its token.", 403, SAFE)

    def show(request: "Request") -> "Response":
        return refused(request) or HTMLResponse(content, headers=SAFE | policy)

    def play(request: "Request") -> "Response":
        row = request.path_params["row"]
        path = tracks[row] if row < len(tracks) else None
        if answer := refused(request):
            return answer
        if path is None or not path.is_file():
            return PlainTextResponse("There is no such audio.", 404, SAFE)
        headers = SAFE | {"Content-Security-Policy": "default-src 'none'; sandbox"}
        return FileResponse(path, headers=headers, media_type=_media_type(path))

    hosts = ["*"] if token else [*LOCAL, "::1"]
    return Starlette(
        routes=[Route("/", show), Route("/audio/{row:int}", play)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
    )


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
