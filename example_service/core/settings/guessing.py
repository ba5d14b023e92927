"""Whether a secret can be guessed, by its words, sequences and patterns rather than its length."""

import re
from collections.abc import Iterable
from typing import Final

TOKEN_GUESSES_LOG10: Final = 12.5
"""How many guesses a token has to withstand, as a power of ten: anyone may try one."""

PASSWORD_GUESSES_LOG10: Final = 10.0
"""The same for a password of a server that only the service reaches."""

# Words that are found in examples and placeholders rather than in dictionaries.
_OUR_WORDS: Final = ("changeme", "example", "payments", "placeholder", "postgres", "yourtoken")
_LONGEST: Final = 72
# A token of which less than a third is unpredictable is made of words.
_UNPREDICTABLE_SHARE: Final = 1 / 3


def can_be_guessed(secret: str, fewest_guesses_log10: float, known: Iterable[str] = ()) -> bool:
    """Estimate whether a secret is too easy to guess.

    Args:
        secret: The secret.
        fewest_guesses_log10: How many guesses it has to withstand, as a power of ten.
        known: What an attacker knows, such as the user's name.
    """
    # Imported here, because its dictionaries take a tenth of a second, and only production asks.
    from zxcvbn import zxcvbn  # noqa: PLC0415

    text = re.sub(r"[^A-Za-z0-9]", "", secret)[:_LONGEST]
    if not text:
        return True
    estimate = zxcvbn(text, user_inputs=[*_OUR_WORDS, *known])
    if estimate["guesses_log10"] < fewest_guesses_log10:
        return True
    matches = estimate["sequence"]
    unpredictable = sum(len(one["token"]) for one in matches if one["pattern"] == "bruteforce")
    is_hexadecimal = re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", text) is not None
    return not is_hexadecimal and unpredictable < len(text) * _UNPREDICTABLE_SHARE
