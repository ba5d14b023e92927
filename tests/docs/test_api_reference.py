"""`docs/api.md` is what `make reference` writes.

The examples on that page come from docstrings; `test_examples.py` runs them as it does the programs
of every other page.
"""

from types import ModuleType

import pytest

from example_service.infra import resilience
from example_service.infra.resilience import testing
from scripts import reference


def test_reference_is_current() -> None:
    """It shows the signatures and docstrings that the code has now."""
    is_current = reference.PAGE.read_text(encoding="utf-8") == reference.page()

    assert is_current, "docs/api.md is not current; run `make reference` and commit the page"


@pytest.mark.parametrize("module", [resilience, testing], ids=lambda module: module.__name__)
def test_every_exported_name_has_an_entry(module: ModuleType) -> None:
    """None is left out, and none is only a heading."""
    page = reference.PAGE.read_text(encoding="utf-8")
    section = page.partition(f"\n## `{module.__name__}`\n")[2]

    for name in module.__all__:
        entry = section.partition(f"\n### `{name}`\n")[2].partition("\n### ")[0]
        assert entry.strip(), name
