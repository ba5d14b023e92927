"""Imports between packages are as `docs/architecture.md` describes them."""

from pathlib import Path

import grimp
import pytest

import example_service

PACKAGE = example_service.__name__
DOMAINS = sorted(path.parent.name for path in Path(example_service.__path__[0]).glob("*/domain.py"))
MAY_NAME_A_DOMAIN = {f"{PACKAGE}.main", f"{PACKAGE}.core.settings.composition"}
"""The two places that list the domains."""
ABOVE_THE_DOMAINS = ("cli", "server", "main")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """The real imports of every module."""
    return grimp.build_graph(PACKAGE, cache_dir=None)


def modules_of(graph: grimp.ImportGraph, name: str) -> set[str]:
    """A package or module, and what is in it."""
    return {f"{PACKAGE}.{name}"} | graph.find_descendants(f"{PACKAGE}.{name}")


@pytest.mark.parametrize("domain", DOMAINS)
def test_only_the_two_lists_of_domains_know_a_domain(graph: grimp.ImportGraph, domain: str) -> None:
    """So it can be deleted with its folder and these lines."""
    inside = modules_of(graph, domain)
    importers = {
        importer
        for module in inside
        for importer in graph.find_modules_that_directly_import(module)
    }

    assert importers - inside <= MAY_NAME_A_DOMAIN


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_knows_nothing_above_it(graph: grimp.ImportGraph, domain: str) -> None:
    """It is put into the service, and does not reach for it."""
    above = {module for name in ABOVE_THE_DOMAINS for module in modules_of(graph, name)}
    imported = {
        module
        for inside in modules_of(graph, domain)
        for module in graph.find_modules_directly_imported_by(inside)
    }

    assert imported & above == set()
