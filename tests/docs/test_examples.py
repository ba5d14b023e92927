"""Every Python program on the pages runs, and prints what the page shows."""

import asyncio
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import MARKDOWN_FILES, Block, blocks, blocks_of


@pytest.mark.parametrize("program", blocks("program"), ids=str)
def test_program_prints_what_is_shown(program: Block, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader who copies and runs the block sees the output below it, or no output."""
    above = "\n" * program.line
    namespace: dict[str, Any] = {"__name__": "__main__"}

    with unconfigured_logging():
        exec(compile(above + program.text, str(program.page), "exec"), namespace)  # noqa: S102
        run_tests(namespace)
    shown = capsys.readouterr().out

    assert shown == (program.output.text if program.output else "")


@contextmanager
def unconfigured_logging() -> Iterator[None]:
    """Reset logging to the state of a new process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def run_tests(namespace: dict[str, Any]) -> None:
    """Run the test functions of a program as pytest does."""
    for name, function in namespace.items():
        if name.startswith("test_"):
            result = function()
            if inspect.iscoroutine(result):
                asyncio.run(result)


@pytest.mark.parametrize("page", MARKDOWN_FILES, ids=lambda page: page.name)
def test_every_code_block_is_executed(page: Path) -> None:
    """Every block has a language and a place that some test covers."""
    overlooked = [(str(block), block.language) for block in blocks_of(page) if block.role is None]

    assert overlooked == []
