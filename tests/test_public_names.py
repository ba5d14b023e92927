"""The public names that code outside a package may rely on."""

import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

import example_service
from example_service.infra import metrics, resilience

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "circuit-breaker.md"


def test_resilience_exports_everything_that_it_imports() -> None:
    """`__all__` contains exactly the names that the package imports from its modules."""
    gathered = [
        name
        for name, value in vars(resilience).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]

    assert sorted(resilience.__all__) == sorted(gathered)


@pytest.mark.parametrize("package", [resilience, metrics], ids=lambda package: package.__name__)
def test_public_names_are_importable_with_a_star(package: ModuleType) -> None:
    """Every listed name exists, and is listed once."""
    assert len(package.__all__) == len(set(package.__all__))
    for name in package.__all__:
        assert hasattr(package, name)


@pytest.mark.parametrize("name", resilience.__all__)
def test_reference_mentions_every_public_name(name: str) -> None:
    """The page about the breaker mentions every name that can be imported."""
    assert re.search(rf"`[^`]*\b{name}\b[^`]*`", REFERENCE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("api.dependencies", "circuit_breaker"),
        ("api.dependencies", "get_payment_breaker"),
        ("core.exceptions", "CircuitBreakerOpenException"),
        ("core.settings", "Settings"),
        ("core.settings", "load_settings"),
        ("infra.http.client", "create_http_client"),
        ("infra.metrics.tracking", "track_circuit_breaker_failure"),
        ("infra.metrics.tracking", "track_circuit_breaker_state_change"),
        ("infra.metrics.tracking", "track_circuit_breaker_success"),
        ("infra.metrics.tracking", "update_circuit_breaker_state"),
        ("main", "create_app"),
    ],
)
def test_documented_modules_have_the_names(module: str, name: str) -> None:
    """The pages import these names from these modules."""
    assert callable(getattr(importlib.import_module(f"example_service.{module}"), name))


def test_every_module_can_be_imported() -> None:
    """Importing a module needs no settings, no network and no running service."""
    for module in pkgutil.walk_packages(example_service.__path__, "example_service."):
        # Python runs the first one, and Alembic the second.
        if not module.name.endswith(("__main__", "migrations.env")):
            importlib.import_module(module.name)
