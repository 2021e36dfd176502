"""A server in front of moto's that fails as S3 does: with 503, too late, or with half an answer."""

import contextlib
import http.client
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
FORBIDDEN = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
UNKNOWN = b"<Error><Code>NotImplemented</Code><Message>Conditional object PUTs are not supported.</Message></Error>"


@dataclass
class Fault:
    """What happens to the first `times` requests that `request`, a regular expression, finds in "METHOD path?query"."""

    request: str
    # slow_down, late (seconds), cut (half of the answer), unanswered (done, but the answer is lost), forbidden,
    # unknown (501)
    kind: str
    times: int = 1
    seconds: float = 0.0
    happened: int = 0
    header: str = ""  # only requests with this one, in lower case


@dataclass
class FaultyS3:
    """Where it answers, what goes wrong, and what was asked."""

    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    headers: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # of each request, names in lower case
    lock: threading.Lock = field(default_factory=threading.Lock)

    def headers_of(self, beginning: str) -> dict[str, str]:
        """The headers of the last request that begins so."""
        return [headers for request, headers in self.headers if request.startswith(beginning)][-1]

    def fault(self, request: str, headers: dict[str, str]) -> Fault | None:
        """The fault of a request, counted."""
        with self.lock:
            self.requests.append(request)
            self.headers.append((request, headers))
            for fault in self.faults:
                applies = re.search(fault.request, request) and (not fault.header or fault.header in headers)
                if applies and fault.happened < fault.times:
                    fault.happened += 1
                    return fault
        return None


@contextlib.contextmanager
def faulty_s3(behind: str) -> Iterator[FaultyS3]:
    """Serve until the context exits; `behind` is the address of the server that works."""
    state = FaultyS3()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state, "behind": behind}))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FaultyS3
    behind: str

    def log_message(self, *words):
        pass

    def _any(self):
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = self.state.fault(f"{self.command} {self.path}", headers)
        kind = fault.kind if fault else ""
        if kind == "slow_down":
            return self._answer(503, [("Content-Type", "application/xml")], SLOW_DOWN)
        if kind == "forbidden":
            return self._answer(403, [("Content-Type", "application/xml")], FORBIDDEN)
        if kind == "unknown":
            return self._answer(501, [("Content-Type", "application/xml")], UNKNOWN)
        if kind == "late":
            time.sleep(fault.seconds)
        status, headers, content = self._forward(body)
        if kind == "unanswered":
            self.close_connection = True
            return self.connection.close()
        if kind == "cut":
            return self._answer(status, headers, content[: len(content) // 2], promised=len(content))
        return self._answer(status, headers, content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any

    def _body(self):
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _forward(self, body):
        address = urlsplit(self.behind)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        skipped = {"connection", "expect", "content-length"}  # not host, which is signed
        headers = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
        connection.request(self.command, self.path, body=body, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        kept = [(n, v) for n, v in answer.getheaders() if n.lower() not in {"transfer-encoding", "connection"}]
        connection.close()
        return answer.status, kept, content

    def _answer(self, status, headers, content, promised=None):
        self.send_response_only(status)
        length = None
        for name, value in headers:
            if name.lower() == "content-length":
                length = value
            else:
                self.send_header(name, value)
        head = self.command == "HEAD"
        self.send_header("Content-Length", length if head and length else str(promised or len(content)))
        self.end_headers()
        if not head:
            self.wfile.write(content)
        if promised:
            self.close_connection = True
