"""Just enough of Elasticsearch to be told a history; tests/contract has a real one."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from warmpool.domain.history import Record
from warmpool.domain.history_text import from_text


class Elastic:
    """Takes all records, and keeps them by their ids."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.kept: dict[str, Record] = {}

    def bulk(self, body: bytes) -> dict[str, Any]:
        """Keep what is created; what is there already is refused, as a real one does."""
        lines = [json.loads(line) for line in body.splitlines() if line]
        items = []
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            ident = action["create"]["_id"]
            status = 409 if ident in self.kept else 201
            error = {"error": {"type": "version_conflict"}} if status != 201 else {}
            self.kept.setdefault(ident, from_text(document["event"]["original"]))
            items.append({"create": {"_id": ident, "status": status, **error}})
        return {"items": items}


@contextmanager
def elastic() -> Iterator[Elastic]:
    """One that runs meanwhile, in threads."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            text = json.dumps(
                told.bulk(body) if self.path.partition("?")[0].endswith("_bulk") else {}
            ).encode()
            self.send_response(200)
            self.send_header("X-Elastic-Product", "Elasticsearch")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_PUT = do_POST = answer  # noqa: N815 - its names

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        told = Elastic(f"http://127.0.0.1:{server.server_port}")
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        try:
            yield told
        finally:
            server.shutdown()
            serving.join()
