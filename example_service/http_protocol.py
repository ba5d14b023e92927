"""The HTTP parser of the server, with a problem as its one answer of its own."""

import json
import uuid

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class ProblemProtocol(HttpToolsProtocol):
    """Answers what is no HTTP at all with `application/problem+json`, as the application would.

    The application never sees such a request, so it has no path and no id; both are made up here.
    """

    def send_400_response(self, msg: str) -> None:
        """Refuse what could not be parsed, and close the connection.

        Args:
            msg: What was wrong, in words of the server.
        """
        request_id = uuid.uuid4()
        body = json.dumps(
            {
                "type": "/problems/http-400",
                "title": "Bad Request",
                "status": 400,
                "detail": msg,
                "instance": request_id.urn,
                "request_id": request_id.hex,
            }
        ).encode()
        head = [
            b"HTTP/1.1 400 Bad Request",
            *(name + b": " + value for name, value in self.server_state.default_headers),
            b"content-type: application/problem+json",
            b"content-length: %d" % len(body),
            b"cache-control: no-store",
            b"x-request-id: " + request_id.hex.encode(),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        self.transport.close()
