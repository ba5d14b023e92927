"""The name of a project in all its forms, and which names a project may have."""

import builtins
import keyword
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_LETTERS: Final = 24
"""So that names of objects in Kubernetes that begin with it have room, too."""

STANDARD_LIBRARY: Final = sys.stdlib_module_names | {
    *("test", "annotationlib", "compression", "profiling"),
    *("asynchat", "asyncore", "cgi", "distutils", "imp", "pipes", "smtpd", "telnetlib"),
}
"""Its modules, with those that only some of the supported versions have."""
IMPORTED_AS: Final = {
    *("attr", "dateutil", "dotenv", "google", "graphql", "jwt", "markdown_it", "opentelemetry"),
    *("pil", "pip", "py", "rpds", "ruamel", "yaml"),
}
"""What dependencies are imported as, where that is not the name by which they are installed."""


class RefusedError(Exception):
    """The request was refused. The message says why, and what to do instead."""


@dataclass(frozen=True)
class Name:
    """A name in all its forms.

    Attributes:
        words: Its words in lower case.
    """

    words: tuple[str, ...]

    @property
    def package(self) -> str:
        """As it is imported: `order_desk`."""
        return "_".join(self.words)

    @property
    def distribution(self) -> str:
        """As it is installed, and called in commands and addresses: `order-desk`."""
        return "-".join(self.words)

    @property
    def title(self) -> str:
        """As it appears in titles: `Order Desk`."""
        return " ".join(word.capitalize() for word in self.words)

    def replaced_by(self, other: "Name", text: bytes) -> bytes:
        """Replace this name by another one, each time in the same form."""
        separated = b"([-_ ]?)".join(word.encode() for word in self.words)

        def same_form(found: re.Match[bytes]) -> bytes:
            return other.like(found[0].decode(), found[1].decode()).encode()

        return re.sub(separated, same_form, text, flags=re.IGNORECASE)

    def like(self, found: str, separator: str) -> str:
        """This name in the form and with the separator in which another one was found."""
        if separator in {"-", "_"} or found.islower():
            joined = separator.join(self.words)
            return joined.upper() if found.isupper() else joined
        return self.title if separator else self.title.replace(" ", "")


def parse_name(text: str, root: Path) -> Name:
    """Parse the name of a project.

    Args:
        text: The name in any form: `order-desk`, `order_desk`, `order desk`, `Order Desk`.
        root: The project that will have it.

    Raises:
        RefusedError: If it is not a valid name, or is taken.
    """
    words = re.split(r"[-_ ]", text.strip())
    if not all(re.fullmatch(r"[a-z][a-z0-9]*|[A-Z][a-z0-9]*|[A-Z]+", word) for word in words):
        raise RefusedError(
            f"NAME={text!r} is not a name: write one or more words of letters and digits, each "
            "beginning with a letter, such as NAME=orders or NAME=order-desk."
        )
    name = Name(tuple(word.lower() for word in words))
    if len(name.package) > MAX_LETTERS:
        raise RefusedError(f"NAME={text!r} is too long: it may have {MAX_LETTERS} letters at most.")
    if owner := taken_names(root).get(name.package):
        raise RefusedError(f"NAME={text!r} is taken: {name.package} is {owner}.")
    return name


def taken_names(root: Path) -> dict[str, str]:
    """The names that a project may not have, in lower case, each with what uses it."""
    locks = "\n".join(lock.read_text(encoding="utf-8") for lock in root.glob("requirements*.lock"))
    installed = {re.sub(r"[-.]", "_", pinned) for pinned in re.findall(r"(?m)^([\w.-]+)==", locks)}
    importable = {path.stem for path in root.glob(".venv*/lib/python*/site-packages/*")}
    python = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins)}
    owners = {
        "already in the project's folder": {path.name for path in root.iterdir()},
        "a package that the project uses": installed | importable | IMPORTED_AS,
        "a module of Python's standard library": STANDARD_LIBRARY,
        "a word of Python": python,
    }
    return {name.lower(): owner for owner, names in owners.items() for name in names}


def distribution_name(root: Path) -> str:
    """The project's name in pyproject.toml."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    name: str = tomllib.loads(text)["project"]["name"]
    return name


def present_name(root: Path) -> Name:
    """The name of the project in that folder, from pyproject.toml.

    Raises:
        RefusedError: If it is a single word, because that may also occur in ordinary text.
    """
    distribution = distribution_name(root)
    words = tuple(distribution.split("-"))
    if len(words) == 1:
        raise RefusedError(
            f"The project is called {distribution}, which may be a word of its text, too. Go back "
            "to a commit before it got this name, and give it another one there."
        )
    return Name(words)
