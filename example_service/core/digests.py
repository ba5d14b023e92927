"""Secrets that are compared by their digests, so that no answer's time gives one away."""

import hashlib
import hmac


def digest(secret: bytes) -> bytes:
    """The SHA-256 digest by which a secret is known."""
    return hashlib.sha256(secret).digest()


def has_digest(secret: bytes | None, expected: bytes) -> bool:
    """Whether a secret is the one with this digest, in constant time; False for None."""
    return secret is not None and hmac.compare_digest(digest(secret), expected)
