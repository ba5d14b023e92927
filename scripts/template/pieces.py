"""Removes named pieces from files: sections and table rows of a page, definitions of a module."""

import ast
import re

_FENCE = "```"


def without_piece(piece: str, text: str) -> str:
    """Remove a piece. A file that does not have it is left unchanged.

    Args:
        piece: `#anchor` for the section below a heading, `|cell` for the rows that have this text
            in their first cell, or `::name` for what a module defines under that name, with its
            decorators, its docstring and the comment above it.
        text: The text of the file.
    """
    if piece.startswith("#"):
        return _without_section(text, piece[1:])
    if piece.startswith("|"):
        rows = text.splitlines(keepends=True)
        return "".join(row for row in rows if not row.startswith(f"| {piece[1:]} |"))
    return _without_definition(text, piece[2:])


def _without_section(text: str, anchor: str) -> str:
    kept, level, is_code = [], 0, False
    for line in text.splitlines(keepends=True):
        is_code ^= line.startswith(_FENCE)
        heading = None if is_code else re.match(r"(#+) (.+)", line)
        if heading and (level == 0 or len(heading[1]) <= level):
            level = len(heading[1]) if anchor_of(heading[2]) == anchor else 0
        if level == 0:
            kept.append(line)
    shorter = "".join(kept)
    return text if shorter == text else f"{shorter.rstrip()}\n"


def anchor_of(heading: str) -> str:
    """The fragment with which GitHub links to a heading."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


def _without_definition(text: str, name: str) -> str:
    lines = text.splitlines(keepends=True)
    body = ast.parse(text).body
    for number, node in enumerate(body):
        if name in _names(node):
            first = min(start.lineno for start in (node, *getattr(node, "decorator_list", ()))) - 1
            while first and lines[first - 1].startswith("#"):
                first -= 1
            following = body[number + 1 : number + 2] if isinstance(node, ast.AnnAssign) else []
            last = [node, *filter(_is_docstring, following)][-1]
            del lines[first : last.end_lineno]
    return "".join(lines)


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
