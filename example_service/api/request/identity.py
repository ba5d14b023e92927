"""Who a request is: its id, and its place in a distributed trace (W3C Trace Context)."""

import os
import random
import re
from collections.abc import Sequence

from example_service.core.context import RequestIdentity

_BATCH = 64
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:+/=@-]{1,128}")
_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?",
    re.DOTALL,
)
_SAMPLED = 0x01
_OWN_SPAN = slice(35, 53)
_TRACE = slice(3, 35)
_TRACESTATE = re.compile(rb"(?=.{1,512}$)[a-z0-9][!-~]*=[ -~]*")
_MOST_MEMBERS = 32

# Ids must be unique, not unguessable, and this is a fraction of the price of asking the system. The
# generator is our own, so that no `random.seed` elsewhere makes the ids of two workers equal.
_generator = random.Random()  # noqa: S311 - ids are no secrets
# Made ahead, for in a row the same work costs a quarter.
_made: list[RequestIdentity] = []


def _after_fork() -> None:
    """Keep a child from handing out the ids of its parent."""
    _made.clear()
    _generator.seed()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def new_identity() -> RequestIdentity:
    """Make up the ids of a request that brought none."""
    if not _made:
        _make_ahead()
    return _made.pop()


def _make_ahead() -> None:
    """Make a batch of identities, whose trace and request ids begin alike."""
    digits = _generator.getrandbits(64 * (1 + 2 * _BATCH)).to_bytes(8 * (1 + 2 * _BATCH), "big")
    beginning, *words = digits.hex("-", 8).split("-")
    _made.extend(
        [
            _identity(beginning + request, f"00-{beginning}{trace}-{request}-00")
            for request, trace in zip(words[::2], words[1::2], strict=True)
        ]
    )


def identify(request_id: bytes | None, traceparent: bytes | None) -> RequestIdentity:
    """Take over the caller's ids where they are usable, and make up the others.

    Args:
        request_id: Value of `X-Request-ID`: used if it is 1 to 128 letters, digits and characters
            of `._~:+/=@-`. None where there is none.
        traceparent: Value of `traceparent`: used if it is valid as Trace Context section 3.2 has
            it, later versions included. None where there is none.
    """
    own_id, own_trace, _ = new_identity()
    if request_id is not None and _REQUEST_ID.fullmatch(request_id):
        own_id = request_id.decode("ascii")
    if traceparent is not None:
        own_trace = _continued(traceparent, own_trace)
    return _identity(own_id, own_trace)


def _identity(request_id: str, traceparent: str) -> RequestIdentity:
    headers = (b"x-request-id", request_id.encode()), (b"traceparent", traceparent.encode())
    return request_id, traceparent, headers


def _continued(traceparent: bytes, own: str) -> str:
    """Put our span into the caller's trace; into our own where the caller's header is invalid.

    Senders of version 00 must set every flag but "sampled" to 0, so the others are dropped.
    """
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return own
    version, trace_id, flags, further = match.groups()
    if version == b"00" and further is not None:
        return own
    sampled = "01" if int(flags, 16) & _SAMPLED else "00"
    return f"00-{trace_id.decode('ascii')}{own[_OWN_SPAN]}{sampled}"


def continued_state(
    given: Sequence[bytes], traceparent: bytes, identity: RequestIdentity
) -> str | None:
    """The state of the caller's trace, for the calls that continue it (Trace Context, section 3.3).

    Args:
        given: The values of `tracestate`, which make up one list.
        traceparent: The caller's `traceparent`.
        identity: Who the request is; with a trace of its own, it has no state.

    Returns:
        The list; None if there is none that can be used.
    """
    if traceparent[_TRACE] != identity[1][_TRACE].encode():
        return None
    members = [member.strip(b" \t") for value in given for member in value.split(b",")]
    state = b",".join(filter(None, members))
    if not _TRACESTATE.fullmatch(state) or state.count(b",") >= _MOST_MEMBERS:
        return None
    return state.decode("ascii")
