"""What `/metrics` answers: the metrics of the service as Prometheus or OpenMetrics text."""

import asyncio
import gzip
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from example_service.infra.kept import Kept
from example_service.infra.metrics.shared.multiprocess import this_worker

# The library takes any version for one that it can write, and fails on those that are no number.
_KNOWN_VERSIONS: Final = frozenset(("0.0.1", "0.0.4", "1.0.0"))

# A longer header would take a while to read, and no scraper sends one.
_LONGEST_HEADER: Final = 1_024

# Text of this kind shrinks to a fifteenth at the lowest level already.
_GZIP_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Exposition:
    """A rendered exposition.

    Attributes:
        body: The text, compressed if the headers say so.
        headers: Response headers that go with it.
    """

    body: bytes
    headers: dict[str, str]


class Expositions:
    """What `/metrics` answers, rendered once a second at most for each format.

    Args:
        kept_seconds: How long a text is kept, however many ask.
    """

    def __init__(self, kept_seconds: float) -> None:
        self._kept_seconds = kept_seconds
        self._kept: dict[tuple[str, bool], Kept[Exposition]] = {}

    async def get(self, *, accept: str = "", accept_encoding: str = "") -> Exposition:
        """What `expose` returns for these headers, or has returned a moment ago."""
        accept, accept_encoding = accept[:_LONGEST_HEADER], accept_encoding[:_LONGEST_HEADER]
        # There are few of these, so the dictionary stays small.
        key = choose_encoder(_known_formats(accept))[1], gzip_accepted(accept_encoding)
        kept = self._kept.get(key)
        if kept is None:
            compute = partial(expose, accept=accept, accept_encoding=accept_encoding)
            kept = self._kept[key] = Kept(compute, seconds=self._kept_seconds)
        return await kept.get()


async def expose(*, accept: str = "", accept_encoding: str = "") -> Exposition:
    """Render the metrics of the whole service; any of its workers can.

    All of it happens in a thread, so that a scrape of many breakers delays no request.

    Args:
        accept: The request's Accept header; decides between Prometheus and OpenMetrics text.
        accept_encoding: The request's Accept-Encoding header; gzip is all that is understood.
    """

    def compute() -> Exposition:
        worker = this_worker()
        registry = REGISTRY if worker is None else worker.gather()
        return render(registry, accept=accept, accept_encoding=accept_encoding)

    return await asyncio.to_thread(compute)


def render(
    registry: CollectorRegistry, *, accept: str = "", accept_encoding: str = ""
) -> Exposition:
    """Render the metrics of one registry, in the format that fits the two headers best."""
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
    """An Accept header without the formats of versions that cannot be written here."""
    return ",".join(
        one
        for one in accept.split(",")
        if all(
            version.strip() in _KNOWN_VERSIONS
            for name, _, version in (part.partition("=") for part in one.split(";"))
            if name.strip() == "version"
        )
    )
