"""Removes mentions of deleted code from Markdown pages: links, trees and drawings of imports."""

import posixpath
import re
from collections.abc import Callable
from typing import Final, TypeAlias

_ITEM: Final = re.compile(
    r"^(?:- |\d+\. )\[[^\]]*\]\(([^)#]*)(?:#[^)]*)?\)[^\n]*\n(?: {2,}\S[^\n]*\n)*", re.MULTILINE
)
_LINK: Final = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:]+)(?:#[^)]*)?\)")
_BLOCK: Final = re.compile(r"(?<=^```text\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_IMPORTS: Final = " ──> "

Exists: TypeAlias = Callable[[str], bool]
"""Whether there is a file or folder, by its path in the project."""

Imports: TypeAlias = Callable[[str, str], bool]
"""Whether one module or package imports another, by their names within the project's package."""


def without_mentions(page: str, exists: Exists, imports: Imports, text: str) -> str:
    """Remove from a page what leads to deleted files.

    A link becomes plain text; a list item that begins with one is removed. Deleted files are
    removed from trees, and deleted imports from drawings.

    Args:
        page: The path of the page.
        exists: Whether a file or folder exists.
        imports: Whether a drawn import exists.
        text: The text of the page.
    """

    def leads_nowhere(target: str) -> bool:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        return bool(target) and not exists(path)

    def drawn(block: re.Match[str]) -> str:
        if _IMPORTS in block[0]:
            return _drawing(block[0], imports)
        return _tree(block[0], exists) if block[0].partition("\n")[0].endswith("/") else block[0]

    text = _ITEM.sub(lambda item: "" if leads_nowhere(item[1]) else item[0], text)
    text = _LINK.sub(lambda link: link[1] if leads_nowhere(link[2]) else link[0], text)
    return _BLOCK.sub(drawn, text)


def _drawing(text: str, imports: Imports) -> str:
    kept = []
    for line in text.splitlines():
        name, _, imported = line.partition(_IMPORTS)
        left = [target for target in imported.split(", ") if imports(name.strip(), target)]
        if not imported:
            kept.append(line)
        elif left:
            kept.append(f"{name}{_IMPORTS}{', '.join(left)}")
    return "".join(f"{line}\n" for line in kept)


def _tree(text: str, exists: Exists) -> str:
    root, *lines = text.splitlines()
    folders, kept = [root], [root]
    for line in lines:
        branch, _, rest = line.partition("── ")
        depth = len(branch) // 4 + 1
        folders[depth:] = [posixpath.join(folders[depth - 1], rest.split()[0])]
        if exists(posixpath.normpath(folders[depth])):
            kept.append(line)
    return "".join(f"{line}\n" for line in kept)
