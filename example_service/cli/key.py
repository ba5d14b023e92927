"""The command `example-service key`: create a key for a caller of the API."""

import argparse
import re
import secrets
from typing import TextIO

from example_service.core.digests import digest
from example_service.core.settings.types import CALLER_NAME


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line parser."""
    parser = commands.add_parser(
        "key",
        help="create a key for a caller of the API",
        description="Create a key for a caller of the API, and the entry of API__KEYS that accepts "
        "it. The key is shown once and not stored.",
    )
    parser.add_argument(
        "name",
        type=_name,
        help="the caller: up to 64 lower-case letters, digits and . _ -, first a letter or digit",
    )
    parser.add_argument(
        "--read-only", action="store_true", help="create a key that only permits reading"
    )


def key(name: str, output: TextIO, *, is_read_only: bool) -> int:
    """Create a key.

    Args:
        name: The name of the caller.
        output: The stream to write the key and its entry of `API__KEYS` to.
        is_read_only: Whether the key only permits reading.

    Returns:
        The exit status, 0.
    """
    made = secrets.token_urlsafe(32)
    right = ":read" if is_read_only else ""
    output.write(
        f"Key for the caller:  {made}\n"
        f"Entry of API__KEYS:  {name}:{digest(made.encode()).hex()}{right}\n"
    )
    return 0


def _name(text: str) -> str:
    if not re.fullmatch(CALLER_NAME, text):
        raise argparse.ArgumentTypeError(
            "should be 1 to 64 lower-case letters, digits and . _ -, beginning with a letter or "
            "digit"
        )
    return text
