"""The ids of a request: its request id and its place in a trace (W3C Trace Context)."""

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
# At most 512 bytes and 32 members. A value has no comma, no equals sign and no space at its end.
_MEMBER = rb"[a-z0-9][a-z0-9_*/@-]{0,255}=[ !-+\--<>-~]{0,255}[!-+\--<>-~]"
_TRACESTATE = re.compile(rb"(?=.{1,512}$)%b(?:,%b){0,31}" % (_MEMBER, _MEMBER))

# Ids must be unique but not unguessable, and `random` is much cheaper than `secrets`. The generator
# is separate, so that `random.seed` elsewhere cannot give two workers the same ids.
_generator = random.Random()  # noqa: S311 - ids are no secrets
# Made in batches, which costs a quarter as much per id.
_made: list[RequestIdentity] = []


def _after_fork() -> None:
    """Prevent a forked child from using the same ids as its parent."""
    _made.clear()
    _generator.seed()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def new_identity() -> RequestIdentity:
    """Return new ids, for a request without any."""
    if not _made:
        _make_batch()
    return _made.pop()


def _make_batch() -> None:
    """Make a batch of identities. Their trace ids and request ids share their first half."""
    digits = _generator.getrandbits(64 * (1 + 2 * _BATCH)).to_bytes(8 * (1 + 2 * _BATCH), "big")
    beginning, *words = digits.hex("-", 8).split("-")
    _made.extend(
        [
            _identity(beginning + request, f"00-{beginning}{trace}-{request}-00")
            for request, trace in zip(words[::2], words[1::2], strict=True)
        ]
    )


def identify(request_id: bytes | None, traceparent: bytes | None) -> RequestIdentity:
    """Use the caller's ids if they are valid, and new ids otherwise.

    Args:
        request_id: The value of `X-Request-ID`, if any. Valid are 1 to 128 letters, digits and
            characters of `._~:+/=@-`.
        traceparent: The value of `traceparent`, if any. Valid is what Trace Context, section 3.2,
            allows, including future versions.
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
    """Return a `traceparent` that continues the caller's trace, or `own` if that is invalid.

    Senders of version 00 must set all flags except "sampled" to 0, so other flags are dropped.
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
    """Validate the caller's `tracestate`, to pass it on (Trace Context, section 3.3).

    Args:
        given: The values of all `tracestate` headers, which form one list.
        traceparent: The caller's `traceparent`.
        identity: The ids of the request. They belong to a new trace if `traceparent` is invalid;
            `tracestate` does not apply then.

    Returns:
        The list. None if there is no usable one.
    """
    if traceparent[_TRACE] != identity[1][_TRACE].encode():
        return None
    members = [member.strip(b" \t") for value in given for member in value.split(b",")]
    state = b",".join(filter(None, members))
    return state.decode("ascii") if _TRACESTATE.fullmatch(state) else None
