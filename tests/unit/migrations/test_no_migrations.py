"""A service without domains has no migrations, and still works."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from example_service import migrations
from example_service.core.settings import Settings
from example_service.infra.database.database import open_database
from example_service.migrations import head_revisions, known_revisions, schema_fault, upgrade


@pytest.fixture
def _no_domains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replace the domains by none."""

    def forget() -> None:
        head_revisions.cache_clear()
        known_revisions.cache_clear()

    monkeypatch.setattr(migrations, "_PACKAGE", tmp_path)
    forget()
    yield
    forget()


@pytest.mark.usefixtures("_no_domains")
async def test_an_empty_database_is_enough(empty_database: Settings) -> None:
    """There are no migrations to apply, and none are reported as missing."""
    assert await upgrade(empty_database) == (frozenset(), frozenset())
    async with open_database(empty_database) as database:
        assert await schema_fault(database) is None
