"""`docs/api.md` equals the output of `make reference`.

The examples on that page come from docstrings; `test_examples.py` runs them like the programs on
every other page.
"""

from types import ModuleType

import pytest

from example_service.infra import resilience
from example_service.infra.resilience import testing
from scripts import reference


def test_reference_is_current() -> None:
    """It shows the current signatures and docstrings."""
    is_current = reference.PAGE.read_text(encoding="utf-8") == reference.page()

    assert is_current, "docs/api.md is not current; run `make reference` and commit the page"


@pytest.mark.parametrize("module", [resilience, testing], ids=lambda module: module.__name__)
def test_every_exported_name_has_an_entry(module: ModuleType) -> None:
    """No name is missing, and each has more than a heading."""
    page = reference.PAGE.read_text(encoding="utf-8")
    section = page.partition(f"\n## `{module.__name__}`\n")[2]

    for name in module.__all__:
        entry = section.partition(f"\n### `{name}`\n")[2].partition("\n### ")[0]
        assert entry.strip(), name
