"""Every Python program in the pages runs, and prints what the page says."""

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
    """A reader who copies the block and runs it sees the output below it, or none where none is."""
    above = "\n" * program.line
    namespace: dict[str, Any] = {"__name__": "__main__"}

    with unconfigured_logging():
        exec(compile(above + program.text, str(program.page), "exec"), namespace)  # noqa: S102
        run_tests(namespace)
    shown = capsys.readouterr().out

    assert shown == (program.output.text if program.output else "")


@contextmanager
def unconfigured_logging() -> Iterator[None]:
    """Have logging as it is in a new process, also after other tests have configured it."""
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
    """Run the test functions that a program has defined, as pytest would."""
    for name, function in namespace.items():
        if name.startswith("test_"):
            result = function()
            if inspect.iscoroutine(result):
                asyncio.run(result)


@pytest.mark.parametrize("page", MARKDOWN_FILES, ids=lambda page: page.name)
def test_every_code_block_is_executed(page: Path) -> None:
    """No block is in a language, or at a place, where no test looks at it."""
    overlooked = [(str(block), block.language) for block in blocks_of(page) if block.role is None]

    assert overlooked == []
