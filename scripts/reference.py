#!/usr/bin/env python3
"""Write docs/api.md, the reference of the breaker's public names.

    python -m scripts.reference

It is generated from signatures and docstrings. Signatures are copied from the source, so that the
page is the same on every Python.
"""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from example_service.infra import resilience

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api.md"
MAX_LINE_LENGTH = 90
INTEGRATIONS = ("httpx", "sqlalchemy", "testing")
INTRODUCTION = """\
# API reference

Every public name of the circuit breaker, with its signature and docstring. This page is generated:
`make reference` writes it. [The circuit breaker](circuit-breaker.md) explains the behaviour, and
[patterns](patterns.md) shows whole programs.
"""
SPECIAL = {"__aenter__", "__call__", "__contains__", "__enter__", "__iter__", "__len__"}
"""Special methods that are documented like ordinary ones."""
SECTIONS = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example):$", re.MULTILINE)


def page() -> str:
    """The whole page."""
    names = [importlib.import_module(f"{resilience.__name__}.{name}") for name in INTEGRATIONS]
    parts = [INTRODUCTION]
    for module in (resilience, *names):
        parts += [f"## `{module.__name__}`", _paragraph(module)]
        for name in public_names(module):
            parts += [f"### `{name}`", *_entry(module, name)]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def public_names(module: ModuleType) -> list[str]:
    """The exports of a module: `__all__`, or else its own public classes and functions."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(
        name
        for name, value in vars(module).items()
        if isinstance(value, (type, FunctionType))
        and value.__module__ == module.__name__
        and not name.startswith("_")
    )


def _paragraph(documented: object) -> str:
    return (inspect.getdoc(documented) or "").split("\n\n", 1)[0]


def _entry(module: ModuleType, name: str) -> Iterator[str]:
    value = getattr(module, name)
    if isinstance(value, type):
        yield from _class(value)
    elif callable(value) and isinstance(function := inspect.unwrap(value), FunctionType):
        yield from (_signature(name, _parsed(function)), _markdown(inspect.getdoc(function)))
    else:
        yield from _assigned(module, name)


# --- contents


def _class(documented: type) -> Iterator[str]:
    if constructor := _constructor(documented):
        yield _signature(documented.__name__, constructor)
    yield _markdown(inspect.getdoc(documented))
    if issubclass(documented, Enum):
        yield _bullets(_constants(documented))
        return
    public_bases = [base for base in documented.__mro__[1:] if base.__name__ in resilience.__all__]
    if public_bases:
        yield f"It also has the members of `{public_bases[0].__name__}`."
    members = _members(documented, public_bases)
    properties = {
        f"{name}: {_unquoted(_parsed(value.fget).returns)}": inspect.getdoc(value) or ""
        for name, value in members.items()
        if isinstance(value, property)
    }
    if properties:
        yield f"**Properties**\n\n{_bullets(properties)}"
    for name, value in members.items():
        if isinstance(value, FunctionType):
            full_name = f"{documented.__name__}.{name}"
            yield f"#### `{full_name}`"
            yield _signature(full_name, _parsed(inspect.unwrap(value)))
            yield _markdown(value.__doc__)


def _members(documented: type, public_bases: list[type]) -> dict[str, Any]:
    """The documented public members of the class and of its private base classes."""
    inherited = {base for public in public_bases for base in public.__mro__}
    found: dict[str, Any] = {}
    for owner in documented.__mro__:
        if owner in inherited or not owner.__module__.startswith(resilience.__name__):
            continue
        for name, value in vars(owner).items():
            is_public = not name.startswith("_") or name in SPECIAL
            if is_public and isinstance(value, (property, FunctionType)) and value.__doc__:
                found.setdefault(name, value)
    return found


def _constructor(documented: type) -> ast.FunctionDef | None:
    """`__init__`, or one made from fields of a data class or named tuple; else None."""
    body = _parsed(documented).body
    for line in body:
        if isinstance(line, ast.FunctionDef) and line.name == "__init__":
            return line
    fields = [ast.unparse(line) for line in body if isinstance(line, ast.AnnAssign)]
    if not fields:
        return None
    made = ast.parse(f"def __init__(self, {', '.join(fields)}): ...").body[0]
    return made if isinstance(made, ast.FunctionDef) else None


def _constants(documented: type[Enum]) -> dict[str, str]:
    """The members of an enumeration, each with the string below it."""
    body = _parsed(documented).body
    return {
        ast.unparse(line): ast.literal_eval(below.value)
        for line, below in pairwise(body)
        if isinstance(line, ast.Assign) and isinstance(below, ast.Expr)
    }


def _assigned(module: ModuleType, name: str) -> Iterator[str]:
    """The assignment of a constant or an alias, and the string below it."""
    for imported in ast.parse(inspect.getsource(module)).body:
        if isinstance(imported, ast.ImportFrom) and name in {
            alias.name for alias in imported.names
        }:
            source = importlib.import_module(str(imported.module))
            body = ast.parse(inspect.getsource(source)).body
            for line, below in zip(body, [*body[1:], None], strict=True):
                target, _, assigned = ast.unparse(line).partition(" = ")
                if re.match(rf"{name}\b", target):
                    if len(target) + len(assigned) > MAX_LINE_LENGTH:
                        assigned = f"(\n    {assigned}\n)"
                    yield _fenced(f"{target} = {assigned}")
                    if isinstance(below, ast.Expr):
                        yield _markdown(ast.literal_eval(below.value))


# --- Markdown


def _parsed(value: Any) -> Any:
    return ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]


class _Unquoted(ast.NodeTransformer):
    """Removes the quotes of annotations that are written as strings."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.parse(node.value, mode="eval").body if isinstance(node.value, str) else node


def _unquoted(annotation: ast.expr) -> str:
    return ast.unparse(_Unquoted().visit(annotation))


def _signature(name: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """A signature, with one parameter per line if it does not fit on one line."""
    parameters = _parameters(function.args)
    if function.returns is None or function.name == "__init__":
        end = ")"
    else:
        end = f") -> {_unquoted(function.returns)}"
    awaited = "await " if isinstance(function, ast.AsyncFunctionDef) else ""
    line = f"{awaited}{name}({', '.join(parameters)}{end}"
    if len(line) > MAX_LINE_LENGTH:
        indented = (f"    {parameter}," for parameter in parameters)
        line = "\n".join([f"{awaited}{name}(", *indented, end])
    return _fenced(line)


def _parameters(arguments: ast.arguments) -> list[str]:
    """The source of each parameter except `self`, with `/` and `*` where they belong."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    written = [_parameter(*pair) for pair in zip(positional, defaults, strict=True)]
    if arguments.posonlyargs:
        written.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg:
        written.append(f"*{_parameter(arguments.vararg)}")
    elif arguments.kwonlyargs:
        written.append("*")
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    written += [_parameter(*pair) for pair in pairs]
    if arguments.kwarg:
        written.append(f"**{_parameter(arguments.kwarg)}")
    return [parameter for parameter in written if parameter != "self"]


def _parameter(argument: ast.arg, default: ast.expr | None = None) -> str:
    annotation = f": {_unquoted(argument.annotation)}" if argument.annotation else ""
    return argument.arg + annotation + (f" = {ast.unparse(default)}" if default else "")


def _fenced(code: str) -> str:
    return f"```pyi\n{code}\n```"


def _markdown(docstring: str | None) -> str:
    """A docstring in Google's style with its sections as lists."""
    text, *sections = SECTIONS.split(inspect.cleandoc(docstring or ""))
    parts = [text.strip()]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        content = textwrap.dedent(body.strip("\n")).strip()
        if title in {"Args", "Attributes", "Raises"}:
            content = _bullets(_items(content))
        parts.append(f"**{title}**\n\n{content}")
    return "\n\n".join(parts)


def _items(section: str) -> dict[str, str]:
    """The names in a section with their descriptions."""
    entries = re.split(r"\n(?! )", section)
    return {name: text for name, _, text in (entry.partition(": ") for entry in entries)}


def _bullets(items: dict[str, str]) -> str:
    return "\n".join(f"- `{name}`: {' '.join(text.split())}" for name, text in items.items())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
