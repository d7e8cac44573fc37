"""A small Hugging Face hub on loopback, for the real client: listing, files, ranges, faults."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import quote, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS = (".mp3", ".tar")  # suffixes that the repository keeps in LFS


@dataclass
class Request:
    method: str
    path: str  # of the file inside the repository, or of the URL where it is none
    start: int  # first byte asked for
    token: str


@dataclass
class HubServer:
    """One data set, served on 127.0.0.1 while the `with` block lasts.

    Attributes
    ----------
    files
        Content by path; may change between requests.
    faults
        What the next requests for a path do instead: a list that is used up, or one string for
        every request. `cut` breaks the connection half-way, `short` announces and sends half,
        `corrupt` changes a byte, `no_range` ignores ranges, `stall` sends `stall_bytes` and
        hangs until `released` is set; a number is an HTTP status.
    listing_fault
        A status, with an optional error code as in "401 GatedRepo", or a body that is not JSON,
        for the listing.
    """

    files: dict[str, bytes]
    repo_id: str = "owner/name"
    faults: dict[str, list[str] | str] = field(default_factory=dict)
    listing_fault: str = ""
    stall_bytes: int = 0
    requests: list[Request] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "HubServer":
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fetched(self) -> list[str]:
        """Return the paths of the files whose content was asked for, in order."""
        return [request.path for request in self.requests if request.path in self.files]

    def listing(self) -> dict[str, object]:
        siblings = []
        for path, content in self.files.items():
            entry: dict[str, object] = {"rfilename": path, "size": len(content)}
            entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            if path.endswith(LFS):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        return {"id": self.repo_id, "sha": COMMIT, "siblings": siblings}

    def next_fault(self, path: str) -> str:
        fault = self.faults.get(path, "")
        if isinstance(fault, list):
            return fault.pop(0) if fault else ""
        return fault


class _Handler(BaseHTTPRequestHandler):
    server_hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        hub, path = self.server_hub, unquote(urlsplit(self.path).path)
        api, resolve, cdn = (
            f"/api/datasets/{hub.repo_id}",
            f"/datasets/{hub.repo_id}/resolve/",
            "/cdn/",
        )
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            self._list()
        elif path.startswith(f"{api}/revision/"):
            self._fail("404 RevisionNotFound")
        elif path.startswith(resolve):
            name = path.removeprefix(resolve).partition("/")[2]
            if name.endswith(LFS) and name in hub.files:
                self._answer(302, b"", Location=quote(f"/cdn/{path.removeprefix(resolve)}"))
            else:
                self._send_file(name)
        elif path.startswith(cdn):
            self._send_file(path.removeprefix(cdn).partition("/")[2])
        else:
            self._note(path)
            self._fail("404 RepoNotFound")

    def _list(self) -> None:
        hub = self.server_hub
        self._note("listing")
        if not hub.listing_fault:
            self._answer(
                200, json.dumps(hub.listing()).encode(), **{"Content-Type": "application/json"}
            )
        elif hub.listing_fault[0].isdigit():
            self._fail(hub.listing_fault)
        else:
            self._answer(200, hub.listing_fault.encode())

    def _send_file(self, name: str) -> None:
        hub = self.server_hub
        start = self._note(name)
        if name not in hub.files:
            self._fail("404 EntryNotFound")
            return
        content, fault = hub.files[name], hub.next_fault(name)
        if fault[:1].isdigit():
            self._fail(fault)
            return
        if fault == "corrupt":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if fault == "no_range":
            start = 0
        body = content[start:]
        sent = {"cut": body[: len(body) // 2], "stall": body[: hub.stall_bytes]}.get(fault, body)
        sent = body[: len(body) // 2] if fault == "short" else sent
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(sent if fault == "short" else body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(sent)
        if fault == "stall":
            hub.released.wait(60)
        self.close_connection = fault in ("cut", "stall")

    def _note(self, path: str) -> int:
        span = self.headers.get("Range", "bytes=0-")
        start = int(span.removeprefix("bytes=").partition("-")[0])
        token = self.headers.get("Authorization", "")
        self.server_hub.requests.append(Request(self.command, path, start, token))
        return start

    def _fail(self, fault: str) -> None:
        status, _, code = fault.partition(" ")
        headers = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self._answer(int(status), b"", **headers)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass
