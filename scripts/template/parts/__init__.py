"""The parts that a service may do without. For each there is a list of what to remove.

A list is a TOML file: the name of the file is that of the part.

- `what`: what is removed, in one line.
- `first`: the parts that must be removed before, because they need this one.
- `delete`: files and folders that belong only to this part, and pieces of others: the section
  `docs/page.md#its-heading`, the table row ``docs/page.md|`first cell` ``, the definition
  `module.py::name`.
- `edits`: the changes of other files, as a diff without line numbers. The lines of a change without
  those with a plus must be in the file exactly once, either now or after the parts in `first` are
  removed. `@@` separates two changes of a file. Unused imports are removed without being listed.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.template.pieces import without_piece
from scripts.template.repository import tracked_files

FOLDER: Final = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Edit:
    """One change of a file that stays.

    Attributes:
        file: Its name, relative to the project.
        lines: The lines of the change, each with a space, a minus or a plus in front.
    """

    file: str
    lines: tuple[str, ...]

    @property
    def shortens_by(self) -> int:
        """How many lines the file is shorter afterwards."""
        kinds = [line[0] for line in self.lines]
        return kinds.count("-") - kinds.count("+")

    @property
    def drops(self) -> bool:
        """Whether the file loses lines with content, unlike an empty line or a fence."""
        return any(re.match(r"-(?!```).*\w", line) for line in self.lines)

    def __str__(self) -> str:
        return "\n".join((f"--- {self.file}", *self.lines))

    def before(self) -> str:
        """The text that must be in the file exactly once."""
        return "".join(f"{line[1:]}\n" for line in self.lines if not line.startswith("+"))

    def fits(self, text: str) -> bool:
        """Whether the lines are in the file exactly once."""
        return bool(self.before()) and text.count(self.before()) == 1

    def made_in(self, text: str) -> str:
        """The text of the file with this change, if it fits."""
        return text.replace(self.before(), self.after()) if self.fits(text) else text

    def after(self) -> str:
        """The text that replaces it."""
        return "".join(f"{line[1:]}\n" for line in self.lines if not line.startswith("-"))

    def fitted_to(self, text: str) -> "Edit":
        """The same change without the lines that are no longer in its file."""
        there = set(text.splitlines())
        left = (line for line in self.lines if line.startswith("+") or line[1:] in there)
        return Edit(self.file, tuple(left))


@dataclass(frozen=True)
class Part:
    """One part, and how it is removed; the attributes are those of its list.

    Attributes:
        name: Its name on the command line.
        what: What is removed, in one line.
        first: The parts that must be removed before.
        delete: Files and folders to delete.
        pieces: Names of files that stay, each with the piece to remove.
        edits: Changes of other files.
    """

    name: str
    what: str
    first: tuple[str, ...]
    delete: tuple[str, ...]
    pieces: tuple[tuple[str, str], ...]
    edits: tuple[Edit, ...]

    @property
    def file(self) -> str:
        """The list."""
        return f"scripts/template/parts/{self.name}.toml"

    def is_gone(self, root: Path) -> bool:
        """Whether none of its files is in the project."""
        return not any((root / path).exists() for path in self.delete)

    def changes(self, file: str) -> bool:
        """Whether a file that stays is changed."""
        return file in {edit.file for edit in self.edits} | {name for name, _ in self.pieces}

    def has(self, path: str) -> bool:
        """Whether a file or folder is deleted."""
        return any(path == deleted or path.startswith(f"{deleted}/") for deleted in self.delete)

    def files(self, root: Path) -> list[str]:
        """The files of the project that are deleted."""
        return [name for name in tracked_files(root) if self.has(name) and (root / name).exists()]

    def misfits(self, root: Path, before: Iterable["Part"] = ()) -> list[str]:
        """What the list names but the project does not have, or has more than once.

        Args:
            root: The project.
            before: The parts in `first`.
        """
        found = [f"there is no {path}" for path in self.delete if not (root / path).exists()]
        for name, piece in self.pieces:
            text = _text_of(root / name)
            if without_piece(piece, text) == text:
                found.append(f"there is no {name}{piece}")
        texts = {edit.file: _text_of(root / edit.file) for edit in self.edits}
        forms = {file: (text, _after(before, file, text)) for file, text in texts.items()}
        for edit in self.edits:
            if not any(edit.fits(form) for form in forms[edit.file]):
                found.append(f"these lines, without those with a plus, are not there once:\n{edit}")
            first, second = forms[edit.file]
            forms[edit.file] = edit.made_in(first), edit.made_in(second)
        return found

    def cost(self, root: Path) -> tuple[int, int, int]:
        """How many lines are removed: of code, of tests, and of anything else."""
        code = tests = other = 0
        changes = [(edit.file, edit.shortens_by) for edit in self.edits]
        changes += [(name, self._lines_of(root / name, piece)) for name, piece in self.pieces]
        deleted = [(name, (root / name).read_bytes()) for name in self.files(root)]
        texts = [(name, text.count(b"\n")) for name, text in deleted if b"\0" not in text]
        for name, lines in (*changes, *texts):
            if name.startswith("tests/"):
                tests += lines
            elif name.endswith((".py", ".js", ".css", ".html", ".lua")):
                code += lines
            else:
                other += lines
        return code, tests, other

    def _lines_of(self, file: Path, piece: str) -> int:
        text = _text_of(file)
        return text.count("\n") - without_piece(piece, text).count("\n")


def _text_of(file: Path) -> str:
    """The text of a file; empty if it does not exist."""
    return file.read_text("utf-8") if file.exists() else ""


def _after(parts: Iterable[Part], file: str, text: str) -> str:
    """The text of a file as these parts leave it."""
    for part in parts:
        for edit in part.edits:
            if edit.file == file:
                text = edit.made_in(text)
    return text


def load_parts() -> dict[str, Part]:
    """All parts by their names."""
    return {path.stem: _load(path) for path in sorted(FOLDER.glob("*.toml"))}


def _load(path: Path) -> Part:
    with path.open("rb") as file:
        text = tomllib.load(file)
    delete: list[str] = text["delete"]
    pieces = [re.fullmatch(r"([^#|:]+)((?:#|\||::).+)", entry) for entry in delete]
    return Part(
        name=path.stem,
        what=text["what"],
        first=tuple(text.get("first", ())),
        delete=tuple(entry for entry, piece in zip(delete, pieces, strict=True) if piece is None),
        pieces=tuple((piece[1], piece[2]) for piece in pieces if piece),
        edits=tuple(_edits(text.get("edits", ""))),
    )


def _edits(text: str) -> Iterator[Edit]:
    for changes in re.split(r"(?m)^--- ", text)[1:]:
        name, _, rest = changes.partition("\n")
        for change in re.split(r"(?m)^@@\n", rest):
            yield Edit(name, tuple(line or " " for line in change.splitlines()))
