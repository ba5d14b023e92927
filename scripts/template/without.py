"""Remove parts of the service that a project does not need.

    python -m scripts.template.without PARTS

Without names it lists the parts, and how many lines each has. Everything is changed in place and
staged, and nothing is committed: `git reset --hard` undoes it.
"""

import ast
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from scripts.template.mentions import without_mentions
from scripts.template.parts import Edit, Part, load_parts
from scripts.template.pieces import without_piece
from scripts.template.project_name import RefusedError, distribution_name
from scripts.template.rename import ROOT, format_and_stage, remove_if_empty, run
from scripts.template.repository import git, require_clean, tracked_files


def chosen_parts(text: str, parts: Mapping[str, Part], root: Path) -> list[Part]:
    """The parts with those names, separated by spaces or commas, in the order of their removal.

    Raises:
        RefusedError: If a part does not exist, was already removed, or is needed by another one.
    """
    names = set(text.replace(",", " ").split())
    for name in sorted(names):
        if name not in parts:
            raise RefusedError(f"PART={name} is not a part. The parts are: {', '.join(parts)}.")
        if parts[name].is_gone(root):
            raise RefusedError(f"PART={name} has been removed already.")
        for first in parts[name].first:
            if first not in names and not parts[first].is_gone(root):
                raise RefusedError(
                    f"PART={name} is needed by {first}. Remove both: "
                    f'make without PART="{first} {name}"'
                )
    return sorted((parts[name] for name in names), key=lambda part: (len(part.first), part.name))


def remove(root: Path, part: Part, parts: Iterable[Part]) -> list[Edit]:
    """Delete the files of a part, and change those that use or mention it.

    Args:
        root: The project.
        part: What to remove.
        parts: All parts. Those already removed may have removed lines that this one would change.

    Returns:
        The changes that must be made by hand, because the file differs from the template's.
    """
    gone = [other for other in parts if other.is_gone(root)]
    for file in part.files(root):
        (root / file).unlink()
        remove_if_empty(root, (root / file).parent)
    left = [edit for edit in part.edits if not _change(root / edit.file, edit, gone)]
    for name, piece in part.pieces:
        _rewrite(root / name, partial(without_piece, piece))
    return left


def _change(path: Path, edit: Edit, gone: Iterable[Part]) -> bool:
    """Make a change if the file still exists. Returns whether nothing of it is left to do.

    If a removed part has changed the file, it may have removed some of the lines as well.
    """
    if not path.exists():
        return True
    text = path.read_text("utf-8")
    is_changed = any(part.changes(edit.file) for part in gone)
    for change in (edit, edit.fitted_to(text)) if is_changed else (edit,):
        if edit.drops and not change.drops:
            return True
        if change.fits(text):
            path.write_text(change.made_in(text), "utf-8")
            return True
    return False


def correct_pages(root: Path) -> None:
    """Remove from all pages what leads to removed code. Unused imports must have been removed."""

    def exists(path: str) -> bool:
        return (root / path).exists()

    package = distribution_name(root).replace("-", "_")

    def imports(name: str, imported: str) -> bool:
        path = root / package / name.replace(".", "/")
        sources = [path.with_suffix(".py"), *path.rglob("*.py")]
        found = [
            full_name
            for source in sources
            if source.exists()
            for full_name in imported_names(source)
        ]
        return any(f"{full_name}.".startswith(f"{package}.{imported}.") for full_name in found)

    for name in tracked_files(root):
        if name.endswith(".md"):
            _rewrite(root / name, partial(without_mentions, name, exists, imports))


def imported_names(source: Path) -> Iterator[str]:
    """The full names of what a module imports."""
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    if path.exists():
        path.write_text(change(path.read_text("utf-8")), "utf-8")


def without(text: str, root: Path = ROOT) -> str:
    """Remove parts from the project in a folder.

    Returns:
        What to do next.

    Raises:
        RefusedError: If the parts cannot be removed, or the project has uncommitted changes.
    """
    parts = load_parts()
    chosen = chosen_parts(text, parts, root)
    if not chosen:
        return table_of_parts(parts.values(), root)
    require_clean(root)
    left = [edit for part in chosen for edit in remove(root, part, parts.values())]
    try:
        format_and_stage(root)
    finally:
        correct_pages(root)
        git(root, "add", "--all")
    names = " and ".join(part.name for part in chosen)
    if left:
        changes = "\n".join(f"\n{edit}" for edit in left)
        return f"{names}: removed, but for what is not as in the template. By hand:\n{changes}"
    return (
        f"{names}: removed. `git diff --cached` shows what has changed, `git commit` keeps it, "
        "`git reset --hard` undoes it. `make lock` drops packages that nothing needs any more."
    )


def table_of_parts(parts: Iterable[Part], root: Path) -> str:
    """The parts that the project has, and their lines."""
    rows = [f"{'PART':<16}{'code':>8}{'tests':>8}{'other':>8}   what is removed"]
    rows += [
        f"{part.name:<16}" + "".join(f"{lines:>8}" for lines in part.cost(root)) + f"   {part.what}"
        for part in parts
        if not part.is_gone(root)
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(run(without, *sys.argv[1:]))
