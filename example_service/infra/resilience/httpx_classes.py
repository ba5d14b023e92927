"""The classes of httpx and httpx2 that the transport derives from and recognizes.

One of the libraries must be installed, or both.
"""

import ssl
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    # For a type checker, a library that is not installed is `Any`.
    import httpx  # type: ignore[import-not-found, unused-ignore]
    import httpx2  # type: ignore[import-not-found, unused-ignore]

    Request: TypeAlias = httpx.Request | httpx2.Request
    Response: TypeAlias = httpx.Response | httpx2.Response
    Transport: TypeAlias = (
        httpx.BaseTransport
        | httpx.AsyncBaseTransport
        | httpx2.BaseTransport
        | httpx2.AsyncBaseTransport
    )

    # Members that differ between the two libraries are overridden below.
    class _OfHttpx(httpx.BaseTransport, httpx.AsyncBaseTransport): ...  # type: ignore[misc, unused-ignore]

    class _OfHttpx2(httpx2.BaseTransport, httpx2.AsyncBaseTransport): ...  # type: ignore[misc, unused-ignore]

    class TransportBase(_OfHttpx, _OfHttpx2):  # type: ignore[misc, unused-ignore]
        """A transport of both kinds, of either library."""

    class SyncStream(httpx.SyncByteStream, httpx2.SyncByteStream):  # type: ignore[misc, unused-ignore]
        """The body of a response, of either library."""

    class AsyncStream(httpx.AsyncByteStream, httpx2.AsyncByteStream):  # type: ignore[misc, unused-ignore]
        """The body of an asynchronous response, of either library."""

    class TransportErrorBase(httpx.TransportError, httpx2.TransportError):  # type: ignore[misc, unused-ignore]
        """The error of a request that got no response, of either library."""

        _request: Any
        request: Any

    TRANSPORTS: tuple[tuple[type, type], ...]
    TRANSPORT_ERRORS: tuple[type[Exception], ...]
    LOCAL_ERRORS: tuple[type[Exception], ...]
else:
    # Both libraries check for their own classes, so streams and errors derive from those of both. A
    # transport derives from the classes of one library, because a client may refuse those of the
    # other. The `dict` removes duplicates: `httpx2.alias_httpx` makes both names one module.
    _LIBRARIES = list(
        dict.fromkeys(import_module(name) for name in ("httpx", "httpx2") if find_spec(name))
    )
    if not _LIBRARIES:
        raise ModuleNotFoundError("the circuit breaker's transport needs httpx or httpx2")

    def _both(name: str, *classes: str) -> type:
        bases = tuple(getattr(library, name) for library in _LIBRARIES for name in classes)
        return bases[0] if len(bases) == 1 else type(name, bases, {})

    TransportBase = object
    SyncStream = _both("SyncStream", "SyncByteStream")
    AsyncStream = _both("AsyncStream", "AsyncByteStream")
    TransportErrorBase = _both("TransportErrorBase", "TransportError")
    TRANSPORTS = tuple(
        (library.BaseTransport, library.AsyncBaseTransport) for library in _LIBRARIES
    )
    # Asynchronous transports do not translate the error of a broken TLS record.
    TRANSPORT_ERRORS = (*(library.TransportError for library in _LIBRARIES), ssl.SSLError)
    # Errors with a local cause: an invalid request, or an exhausted connection pool.
    LOCAL_ERRORS = tuple(
        getattr(library, name)
        for library in _LIBRARIES
        for name in ("LocalProtocolError", "PoolTimeout", "UnsupportedProtocol")
    )
