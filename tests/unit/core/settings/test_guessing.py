"""Which secrets count as guessable."""

import base64
import hashlib
import secrets
import uuid
from urllib.parse import quote

import pytest

from example_service.core.settings.guessing import (
    PASSWORD_GUESSES_LOG10,
    TOKEN_GUESSES_LOG10,
    can_be_guessed,
)


@pytest.mark.parametrize(
    "secret",
    [
        "supersecretadmintoken",
        "super-secret-admin-token",
        "SuperSecretAdminToken2026!",
        "abcdefghijklmnopqrstuvwxyz",
        "zyxwvutsrqponmlkjihg",
        "12345678901234567890",
        "0123456789abcdef0123456789abcdef",
        "qwertyuiopasdfghjklzxcvbnm",
        "1qaz2wsx3edc4rfv5tgb",
        "qwertz-asdfgh-yxcvbn",
        "aaaaaaaaaaaaaaaaaaaaaaaa",
        "abcabcabcabcabcabcabc",
        "deadbeefdeadbeefdeadbeef",
        "changeme-changeme",
        "please-Change-Me-now-1",
        "your-token-goes-here",
        "P@ssw0rdP@ssw0rd1234",
        "S3cr3tT0k3nF0rAdm1n!!",
        "administrator-token-2026",
        "my-very-long-secret-token-for-production",
        "the-quick-brown-fox-jumps-over-the-lazy-dog",
        "Summer2026!Summer2026!",
        "----------------",
        "c3VwZXJzZWNyZXRhZG1pbnRva2Vu",
        "YWRtaW5hZG1pbmFkbWluYWQ=",
        "6368616e67656d656368616e67656d65",
        hashlib.md5(b"dragon", usedforsecurity=False).hexdigest(),
        hashlib.sha1(b"changeme", usedforsecurity=False).hexdigest(),
        hashlib.sha256(b"monkey").hexdigest().upper(),
        hashlib.sha512(b"monkey").hexdigest(),
        base64.b64encode(b"supersecretadmintoken\n").decode(),
        base64.b64encode(base64.b64encode(b"supersecretadmintoken")).decode(),
        base64.b32encode(b"super-secret-admin-token").decode().rstrip("="),
        quote("supersecretadmintoken").replace("s", "%73"),
        "a1b2c3d4e5f6g7h8i9j0",
        "TODO-set-a-real-token-here",
        "prod-admin-token-v2",
        "LoremIpsumDolorSitAmet",
        "toBeOrNotToBeThatIsTheQuestion",
        "3.1415926535897932384626433832795",
        "2357111317192329",
        "550e8400-e29b-41d4-a716-446655440000",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ],
)
def test_words_and_patterns_can_be_guessed(secret: str) -> None:
    """They count as guessable at any length and with any separators."""
    assert can_be_guessed(secret, TOKEN_GUESSES_LOG10)


def test_a_random_uuid_cannot_be_guessed() -> None:
    """Only those of well-known examples are."""
    assert not can_be_guessed(str(uuid.uuid4()), TOKEN_GUESSES_LOG10)


@pytest.mark.parametrize("make", [secrets.token_urlsafe, secrets.token_hex])
@pytest.mark.parametrize("count", [16, 32, 64])
def test_random_secrets_cannot_be_guessed(make: type, count: int) -> None:
    """Random secrets pass in every alphabet that generators use."""
    assert not any(can_be_guessed(make(count), TOKEN_GUESSES_LOG10) for _ in range(5))


def test_a_password_may_be_shorter_than_a_token() -> None:
    """A shorter password passes unless it is the user name, which an attacker knows."""
    assert not can_be_guessed("Wm8-tY3pQz51", PASSWORD_GUESSES_LOG10)
    assert can_be_guessed("Wm8-tY3pQz51", PASSWORD_GUESSES_LOG10, ["wm8-ty3pqz51", "wm8ty3pqz51"])
