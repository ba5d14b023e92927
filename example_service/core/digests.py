"""Comparing secrets by their digests in constant time, which prevents timing attacks."""

import hashlib
import hmac


def digest(secret: bytes) -> bytes:
    """Return the SHA-256 digest of a secret."""
    return hashlib.sha256(secret).digest()


def has_digest(secret: bytes | None, expected: bytes) -> bool:
    """Whether a secret has the expected digest, compared in constant time. False for None."""
    return secret is not None and hmac.compare_digest(digest(secret), expected)
