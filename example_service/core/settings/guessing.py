"""Estimate how easily a secret can be guessed, from the words and patterns in it."""

import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

TOKEN_GUESSES_LOG10: Final = 12.5
"""The guesses that a token must withstand, as a power of ten. Anyone may try to guess it."""

PASSWORD_GUESSES_LOG10: Final = 10.0
"""The same for the password of a server that only the service can reach."""

# Words of examples and placeholders, which are not in dictionaries.
_OUR_WORDS: Final = ("changeme", "example", "payments", "placeholder", "postgres", "yourtoken")
_DIGESTS: Final = {32: "md5", 40: "sha1", 64: "sha256"}
"""The kinds of digests, by their length in hexadecimal."""
_MAX_LENGTH: Final = 72
# A token counts as made of words if less than this share of it is unpredictable.
_UNPREDICTABLE_SHARE: Final = 1 / 3


def can_be_guessed(secret: str, min_guesses_log10: float, known: Iterable[str] = ()) -> bool:
    """Estimate whether a secret is too easy to guess.

    Args:
        secret: The secret.
        min_guesses_log10: The guesses that it must withstand, as a power of ten.
        known: Words that an attacker knows, such as the user name.
    """
    words = (*_OUR_WORDS, *known)
    return bool(digests_of_words([secret])) or any(
        _is_easy(reading, min_guesses_log10, words) for reading in _readings(secret)
    )


def digests_of_words(secrets: Iterable[str]) -> set[str]:
    """Find the secrets that are digests of a common password or word, in hexadecimal."""
    given = {secret.lower() for secret in secrets if re.fullmatch(r"[0-9a-fA-F]+", secret)}
    kinds = {_DIGESTS[len(digest)] for digest in given if len(digest) in _DIGESTS}
    return given & {
        hashlib.new(kind, word.encode(), usedforsecurity=False).hexdigest()
        for kind in kinds
        for word in _common_words()
    }


def _common_words() -> Iterator[str]:
    # Imported on use, like zxcvbn itself.
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # noqa: PLC0415

    yield from _OUR_WORDS
    yield from FREQUENCY_LISTS["passwords"]
    yield from FREQUENCY_LISTS["english_wikipedia"]


def _readings(secret: str) -> Iterator[str]:
    """The secret, and what it stands for if it is a text in hexadecimal or base64."""
    yield secret
    base64 = secret.replace("-", "+").replace("_", "/").rstrip("=")
    base64 += "=" * (-len(base64) % 4)
    for decode, text in ((binascii.a2b_hex, secret), (binascii.a2b_base64, base64)):
        with suppress(ValueError):
            decoded = decode(text).decode("ascii")
            if decoded.isprintable():
                yield decoded


def _is_easy(secret: str, min_guesses_log10: float, words: Sequence[str]) -> bool:
    # Imported on use, because it takes 0.1 seconds to load and only production needs it.
    from zxcvbn import zxcvbn  # noqa: PLC0415

    text = re.sub(r"[^A-Za-z0-9]", "", secret)[:_MAX_LENGTH]
    if not text:
        return True
    estimate = zxcvbn(text, user_inputs=words)
    if estimate["guesses_log10"] < min_guesses_log10:
        return True
    matches = estimate["sequence"]
    unpredictable = sum(
        len(match["token"]) for match in matches if match["pattern"] == "bruteforce"
    )
    is_hexadecimal = re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", text) is not None
    return not is_hexadecimal and unpredictable < len(text) * _UNPREDICTABLE_SHARE
