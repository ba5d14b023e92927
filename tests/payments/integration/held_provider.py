"""A payment provider that responds only when it is allowed to."""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.service_process import DEADLINE_SECONDS


class HeldProvider:
    """A payment provider that responds only when it is allowed to.

    Attributes:
        asked: Set when a request has arrived.
        may_answer: Set by the test to release the responses.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.set()
                provider.may_answer.wait(DEADLINE_SECONDS)
                body = b'{"currency": "EUR", "base": "USD", "rate": "0.92"}'
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["HeldProvider"]:
        """Serve until the end of the block."""
        provider = cls()
        thread = threading.Thread(target=provider.server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield provider
        finally:
            provider.may_answer.set()
            provider.server.shutdown()
            thread.join()
            provider.server.server_close()
