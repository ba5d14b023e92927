"""Responses of the server itself to requests it refuses, as `application/problem+json`."""

import json
import re
import uuid
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final, NamedTuple

from example_service.api.problems import catalogue
from example_service.api.problems.catalogue import ProblemType


class Refusal(NamedTuple):
    """Why a request is refused.

    Attributes:
        type: The entry in the catalogue of problems, with the status of the response.
        detail: What is wrong with the request, for the client.
    """

    type: ProblemType
    detail: str


def _plain(status: HTTPStatus, detail: str) -> Refusal:
    return Refusal(catalogue.plain_status(status), detail)


MAX_HEAD_BYTES: Final = 65_536
"""The limit of the target and headers of a request together, and of the framing of its body."""

NOT_HTTP: Final = _plain(HTTPStatus.BAD_REQUEST, "This is not a valid HTTP request.")
INCOMPLETE: Final = _plain(
    HTTPStatus.BAD_REQUEST, "The connection ended in the middle of the request."
)
NOT_ONE_HOST: Final = Refusal(
    catalogue.INVALID_HOST, "A request must name its host in one valid `Host` header."
)
FOREIGN_TARGET: Final = _plain(
    HTTPStatus.BAD_REQUEST, "The target must be a path, or an http or https URL with a host."
)
NO_TUNNEL: Final = _plain(HTTPStatus.BAD_REQUEST, "This server is not a proxy.")
HEAD_TOO_LONG: Final = _plain(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"Target and headers must have at most {MAX_HEAD_BYTES} bytes.",
)
FRAMING_TOO_LONG: Final = _plain(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"Chunk extensions and trailers must have at most {MAX_HEAD_BYTES} bytes.",
)
HEAD_TOO_SLOW: Final = _plain(
    HTTPStatus.REQUEST_TIMEOUT, "Target and headers did not arrive within the time limit."
)
BODY_TOO_LARGE: Final = Refusal(
    catalogue.BODY_TOO_LARGE, "The body is larger than any that is accepted."
)
UNKNOWN_CODING: Final = _plain(
    HTTPStatus.NOT_IMPLEMENTED, "The only transfer coding that is supported is `chunked`."
)
UNKNOWN_METHOD: Final = _plain(
    HTTPStatus.NOT_IMPLEMENTED, "The method is unknown. Methods are in capital letters."
)
UNKNOWN_VERSION: Final = _plain(
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "The supported versions are HTTP/1.1 and HTTP/1.0."
)
TOO_MANY_CONNECTIONS: Final = Refusal(
    catalogue.OVERLOADED, "This instance has too many connections."
)

_BY_PARSER_MESSAGE: Final = {
    "Content-Length overflow": BODY_TOO_LARGE,
    "Expected dot": UNKNOWN_VERSION,
    "Invalid HTTP version": UNKNOWN_VERSION,
    "Invalid `Transfer-Encoding` header value": UNKNOWN_CODING,
    "Invalid major version": UNKNOWN_VERSION,
    "Invalid minor version": UNKNOWN_VERSION,
    "Pause on PRI/Upgrade": UNKNOWN_VERSION,
    "Request has invalid `Transfer-Encoding`": UNKNOWN_CODING,
}

# One that begins like a known method, and those of RTSP, have messages of their own.
_INVALID_METHOD: Final = frozenset(
    (
        "Expected space after method",
        "Invalid method encountered",
        "Invalid method for HTTP/x.x request",
    )
)
# Other protocols, such as TLS, also begin with an invalid method.
_REQUEST_LINE: Final = re.compile(rb"[\w!#$%&'*+.^`|~-]+ [!-~]+ HTTP/", re.ASCII)

_HEADERS: Final = (
    b"content-type: application/problem+json",
    b"cache-control: no-store",
    b"x-content-type-options: nosniff",
    b"content-security-policy: default-src 'none'; frame-ancestors 'none'",
    b"connection: close",
)


def refusal_of(parser_message: str, beginning: bytes) -> Refusal:
    """Return the refusal that matches an error message of the parser.

    Args:
        parser_message: The message.
        beginning: The first bytes of the refused request. Empty if they are not known.
    """
    if parser_message in _INVALID_METHOD and _REQUEST_LINE.match(beginning):
        return UNKNOWN_METHOD
    return _BY_PARSER_MESSAGE.get(parser_message, NOT_HTTP)


def answer(
    refusal: Refusal, default_headers: Iterable[tuple[bytes, bytes]], path_prefix: str
) -> bytes:
    """Return the bytes of the response to a refused request. The connection is closed after it.

    The application does not see such a request, so the path is unknown and a new request id is
    generated.

    Args:
        refusal: Why the request is refused.
        default_headers: The headers that the server adds to every response.
        path_prefix: The path under which clients see the service; empty if it has none.
    """
    status, request_id = HTTPStatus(refusal.type.status), uuid.uuid4()
    body = json.dumps(
        {
            "type": f"{path_prefix}/problems/{refusal.type.slug}",
            "title": refusal.type.title,
            "status": status,
            "detail": refusal.detail,
            "instance": request_id.urn,
            "request_id": request_id.hex,
        }
    ).encode()
    head = [
        f"HTTP/1.1 {status} {status.phrase}".encode(),
        *(b"%b: %b" % header for header in default_headers),
        *_HEADERS,
        b"content-length: %d" % len(body),
        b"x-request-id: " + request_id.hex.encode(),
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        head.append(b"retry-after: 1")
    return b"\r\n".join(head) + b"\r\n\r\n" + body
