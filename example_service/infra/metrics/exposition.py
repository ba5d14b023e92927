"""The body of `/metrics`: the metrics of the service as Prometheus or OpenMetrics text."""

import asyncio
import gzip
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from example_service.infra.kept import Kept
from example_service.infra.metrics.shared.multiprocess import this_worker

# The library accepts versions that it does not support, and raises on those that are not numbers.
_KNOWN_VERSIONS: Final = frozenset(("0.0.1", "0.0.4", "1.0.0"))

# Parsing a very long header would take too much time, and no scraper sends one.
_MAX_HEADER_LENGTH: Final = 1_024

# Even the lowest level compresses this text to about a fifteenth of its size.
_GZIP_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Exposition:
    """A rendered exposition.

    Attributes:
        body: The text, compressed if the headers contain `Content-Encoding`.
        headers: The response headers.
    """

    body: bytes
    headers: dict[str, str]


class Expositions:
    """Renders the metrics, and caches the result for each format.

    Args:
        kept_seconds: How long a result is cached, in seconds.
    """

    def __init__(self, kept_seconds: float) -> None:
        self._kept_seconds = kept_seconds
        self._kept: dict[tuple[str, bool], Kept[Exposition]] = {}

    async def get(self, *, accept: str = "", accept_encoding: str = "") -> Exposition:
        """Return the result of `expose` for these headers, which may come from the cache."""
        accept, accept_encoding = accept[:_MAX_HEADER_LENGTH], accept_encoding[:_MAX_HEADER_LENGTH]
        # There are only a few different keys, so the dictionary stays small.
        key = choose_encoder(_known_formats(accept))[1], gzip_accepted(accept_encoding)
        kept = self._kept.get(key)
        if kept is None:
            compute = partial(expose, accept=accept, accept_encoding=accept_encoding)
            kept = self._kept[key] = Kept(compute, seconds=self._kept_seconds)
        return await kept.get()


async def expose(*, accept: str = "", accept_encoding: str = "") -> Exposition:
    """Render the metrics of all workers.

    This runs in a thread, so that a scrape of many breakers does not delay requests.

    Args:
        accept: The Accept header of the request. It selects Prometheus or OpenMetrics text.
        accept_encoding: The Accept-Encoding header of the request. Only gzip is supported.
    """

    def compute() -> Exposition:
        worker = this_worker()
        registry = REGISTRY if worker is None else worker.gather()
        return render(registry, accept=accept, accept_encoding=accept_encoding)

    return await asyncio.to_thread(compute)


def render(
    registry: CollectorRegistry, *, accept: str = "", accept_encoding: str = ""
) -> Exposition:
    """Render the metrics of one registry in the format that matches the two headers best."""
    encode, content_type = choose_encoder(_known_formats(accept))
    body = encode(registry)
    headers = {
        "Content-Type": content_type,
        "Cache-Control": "no-store",
        "Vary": "Accept, Accept-Encoding",
    }
    if gzip_accepted(accept_encoding):
        body = gzip.compress(body, compresslevel=_GZIP_LEVEL)
        headers["Content-Encoding"] = "gzip"
    return Exposition(body, headers)


def _known_formats(accept: str) -> str:
    """Remove the formats with unsupported versions from an Accept header."""
    return ",".join(
        choice
        for choice in accept.split(",")
        if all(
            version.strip() in _KNOWN_VERSIONS
            for name, _, version in (part.partition("=") for part in choice.split(";"))
            if name.strip() == "version"
        )
    )
