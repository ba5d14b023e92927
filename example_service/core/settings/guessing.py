"""Estimate how easily a secret can be guessed, from the words and patterns in it."""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

TOKEN_GUESSES_LOG10: Final = 12.5
"""The guesses that a token must withstand, as a power of ten. Anyone may try to guess it."""

PASSWORD_GUESSES_LOG10: Final = 10.0
"""The same for the password of a server that only the service can reach."""

# Words of examples and placeholders, which are not in dictionaries.
_OUR_WORDS: Final = (
    "amet",
    "changeme",
    "dolor",
    "example",
    "ipsum",
    "lorem",
    "payments",
    "placeholder",
    "postgres",
    "prod",
    "todo",
    "yourtoken",
)
# Secrets of well-known documentation, without punctuation, and digits that everybody knows.
_PUBLISHED: Final = (
    "123e4567e89b12d3a456426614174000",
    "550e8400e29b41d4a716446655440000",
    "6ba7b8109dad11d180b400c04fd430c8",
    "f47ac10b58cc4372a5670e02b2c3d479",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "wjalrxutnfemik7mdengbpxrficyexamplekey",
    "eyjhbgcioijiuzi1niisinr5cci6ikpxvcj9",
    "3141592653589793238462643383279502884197169399375105820974944592",
    "2718281828459045235360287471352662497757247093699959574966967627",
    "1414213562373095048801688724209698078569671875376948073176679737",
    "1618033988749894848204586834365638117720309179805762862135448622",
    "112358132134558914423337761098715972584418167651094617711286574636875025",
    "2357111317192329313741434753596167717379838997101103107109113127131137139",
    "1248163264128256512102420484096819216384327686553613107226214452428810485762097152",
)
_DIGESTS: Final = {
    32: hashlib.md5,
    40: hashlib.sha1,
    56: hashlib.sha224,
    64: hashlib.sha256,
    96: hashlib.sha384,
    128: hashlib.sha512,
}
"""The kinds of digests, by their length in hexadecimal."""
_DECODERS: Final[tuple[Callable[[str], bytes], ...]] = (
    binascii.a2b_hex,
    lambda text: base64.b64decode(_padded(text.replace("-", "+").replace("_", "/"), 4)),
    lambda text: base64.b32decode(_padded(text.upper(), 8)),
    unquote_to_bytes,
)
_MAX_DECODINGS: Final = 3
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
    return _can_be_guessed(secret, min_guesses_log10, (*_OUR_WORDS, *known))


# A process reads its settings more than once.
@lru_cache(maxsize=16)
def _can_be_guessed(secret: str, min_guesses_log10: float, words: tuple[str, ...]) -> bool:
    readings = _readings(secret, _MAX_DECODINGS)
    return bool(digests_of_words(frozenset({secret}))) or any(
        _is_easy(reading, min_guesses_log10, words) for reading in readings
    )


@lru_cache(maxsize=16)
def digests_of_words(secrets: frozenset[str]) -> frozenset[str]:
    """Find the secrets that are digests of a common password or word, in hexadecimal."""
    given = {secret.lower() for secret in secrets if re.fullmatch(r"[0-9a-fA-F]+", secret)}
    kinds = {_DIGESTS[len(digest)] for digest in given if len(digest) in _DIGESTS}
    return frozenset(
        given
        & {
            kind(word.encode(), usedforsecurity=False).hexdigest()
            for kind in kinds
            for word in _common_words()
        }
    )


def _common_words() -> Iterator[str]:
    # Imported on use, like zxcvbn itself.
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # noqa: PLC0415

    yield from _OUR_WORDS
    yield from FREQUENCY_LISTS["passwords"]
    yield from FREQUENCY_LISTS["english_wikipedia"]


def _readings(secret: str, decodings: int) -> Iterator[str]:
    """The secret, and what it stands for if it is an encoded text, even several times."""
    yield secret
    if decodings:
        for decode in _DECODERS:
            with suppress(ValueError):
                # A command such as `echo word | base64` encodes the line break as well.
                decoded = decode(secret).decode("ascii").strip()
                if decoded.isprintable() and decoded != secret:
                    yield from _readings(decoded, decodings - 1)


def _padded(text: str, length: int) -> str:
    digits = text.rstrip("=")
    return digits + "=" * (-len(digits) % length)


def _is_easy(secret: str, min_guesses_log10: float, words: tuple[str, ...]) -> bool:
    text = re.sub(r"[^A-Za-z0-9]", "", secret)[:_MAX_LENGTH]
    if not text or any(text.lower() in published for published in _PUBLISHED):
        return True
    # The second one finds two sequences in turn, such as `a1b2c3`.
    if any(_is_pattern(each, min_guesses_log10, words) for each in (text, text[::2] + text[1::2])):
        return True
    predictable = _letters_in_words(secret, words)
    return not _is_hexadecimal(text) and predictable > len(text) * (1 - _UNPREDICTABLE_SHARE)


def _letters_in_words(secret: str, words: tuple[str, ...]) -> int:
    """The number of letters in common words, which capitals or other characters separate."""
    # Imported on use, because it takes 0.1 seconds to load and only production needs it.
    from zxcvbn.matching import RANKED_DICTIONARIES  # noqa: PLC0415

    pieces = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", secret[: 2 * _MAX_LENGTH])
    dictionaries = (words, *RANKED_DICTIONARIES.values())
    return sum(
        len(piece) for piece in pieces if any(piece.lower() in each for each in dictionaries)
    )


def _is_pattern(text: str, min_guesses_log10: float, words: tuple[str, ...]) -> bool:
    """Whether a text is mostly words, sequences, repetitions, dates and keyboard rows."""
    from zxcvbn import zxcvbn  # noqa: PLC0415

    estimate = zxcvbn(text, user_inputs=words)
    if estimate["guesses_log10"] < min_guesses_log10:
        return True
    unpredictable = sum(
        len(match["token"]) for match in estimate["sequence"] if match["pattern"] == "bruteforce"
    )
    return not _is_hexadecimal(text) and unpredictable < len(text) * _UNPREDICTABLE_SHARE


def _is_hexadecimal(text: str) -> bool:
    """Whether a text is made of hexadecimal digits, in which letters form words by chance."""
    return re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", text) is not None
