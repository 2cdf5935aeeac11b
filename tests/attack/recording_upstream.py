"""An upstream of raw bytes, in threads, that keeps requests to the byte and answers as told."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterable

ANSWER = b'{"id": "1", "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}'


class RecordingUpstream:
    """Serves until the block ends.

    Attributes:
        seen: The requests so far, head and body.
    """

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.pieces: list[bytes] = []
        self.answers()
        upstream = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                upstream._handle(self)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> RecordingUpstream:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answers(
        self,
        body: bytes | Iterable[bytes] = ANSWER,
        *,
        status: int = 200,
        headers: Iterable[tuple[str, str]] = (),
        kind: str = "application/json",
    ) -> None:
        """From now on answer so, each piece of `body` by itself; what was seen is forgotten."""
        pieces = [body] if isinstance(body, bytes) else list(body)
        lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", "connection: close"]
        if isinstance(body, bytes):
            lines.append(f"content-length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in headers]
        self.pieces = ["\r\n".join([*lines, "", ""]).encode("latin-1"), *pieces]
        self.seen.clear()

    def _handle(self, handler: socketserver.StreamRequestHandler) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = handler.rfile.readline()
            if not line:
                return
            head += line
        length = next(
            (
                int(h.split(b":")[1])
                for h in head.lower().splitlines()
                if h[:15] == b"content-length:"
            ),
            0,
        )
        self.seen.append(head + handler.rfile.read(length))
        for piece in self.pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()
            time.sleep(0.003)  # so that each arrives by itself
