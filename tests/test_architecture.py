"""Imports between packages are as `docs/architecture.md` describes them."""

from pathlib import Path
from typing import Final

import grimp
import pytest

import example_service
from tests.docs.pages import ROOT, blocks_of

PACKAGE = example_service.__name__
DOMAINS = sorted(path.parent.name for path in Path(example_service.__path__[0]).glob("*/domain.py"))
MAY_NAME_A_DOMAIN = {f"{PACKAGE}.main", f"{PACKAGE}.core.settings.composition"}
"""The two places that list the domains."""
ABOVE_THE_DOMAINS = ("cli", "server", "main")

ARCHITECTURE = ROOT / "docs" / "architecture.md"
BELOW_THE_DOMAINS = ("domain", "api", "migrations", "replay", "infra", "core")
TOP: Final = [*ABOVE_THE_DOMAINS, *DOMAINS, *BELOW_THE_DOMAINS]
"""From the top layer to the bottom one."""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """The actual imports of every module."""
    return grimp.build_graph(PACKAGE, cache_dir=None)


def modules_of(graph: grimp.ImportGraph, name: str) -> set[str]:
    """A package or module, with everything inside it."""
    return {f"{PACKAGE}.{name}"} | graph.find_descendants(f"{PACKAGE}.{name}")


@pytest.mark.parametrize("domain", DOMAINS)
def test_only_the_two_lists_of_domains_know_a_domain(graph: grimp.ImportGraph, domain: str) -> None:
    """A domain can be deleted by removing its folder and these lines."""
    inside = modules_of(graph, domain)
    importers = {
        importer
        for module in inside
        for importer in graph.find_modules_that_directly_import(module)
    }

    assert importers - inside <= MAY_NAME_A_DOMAIN


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_knows_nothing_above_it(graph: grimp.ImportGraph, domain: str) -> None:
    """The service receives its domains; a domain does not import the service."""
    above = {module for name in ABOVE_THE_DOMAINS for module in modules_of(graph, name)}
    imported = {
        module
        for inside in modules_of(graph, domain)
        for module in graph.find_modules_directly_imported_by(inside)
    }

    assert imported & above == set()


def test_the_tree_shows_every_package_and_module() -> None:
    """Only `__init__.py` files and dated migrations may be missing from the tree."""
    [tree] = [block for block in blocks_of(ARCHITECTURE) if block.role == "tree"]
    package = ROOT / PACKAGE
    modules = {path for path in package.rglob("*.py") if path.stem.isidentifier()}
    files = {path for path in modules if not path.stem.startswith("__")}
    packages = {path.parent for path in package.rglob("__init__.py")} - {package}

    missing = sorted((files | packages) - set(tree_paths(tree.text)))
    lines = [
        f"add to the tree of docs/architecture.md, in {path.parent.relative_to(ROOT)}: "
        f"├── {path.name}  what it is"
        for path in missing
    ]
    assert lines == []


def tree_paths(text: str) -> list[Path]:
    """The files and folders of a drawn tree."""
    root, *lines = text.splitlines()
    folders, paths = [ROOT / root], []
    for line in lines:
        branch, _, rest = line.partition("── ")
        depth = len(branch) // 4 + 1
        paths.append(folders[depth - 1] / rest.split()[0])
        folders[depth:] = [paths[-1]]
    return paths


def test_the_drawing_shows_the_imports(graph: grimp.ImportGraph) -> None:
    """It shows those between top-level packages, and those within `api`, `infra` and `core`."""
    drawn = [block.text for block in blocks_of(ARCHITECTURE) if block.role == "imports"]
    inside = [
        drawing(graph, [f"{parent}.{child}" for child in children(graph, parent)])
        for parent in ("api", "infra", "core")
    ]

    expected = [drawing(graph, TOP), "\n".join(filter(None, inside))]
    assert [text.split() for text in drawn] == [text.split() for text in expected]


def children(graph: grimp.ImportGraph, parent: str) -> list[str]:
    """The names of the direct members of a package."""
    return sorted(child.rpartition(".")[2] for child in graph.find_children(f"{PACKAGE}.{parent}"))


def drawing(graph: grimp.ImportGraph, names: list[str]) -> str:
    """One line for each package or module that imports others from the list."""
    owners = {module: name for name in names for module in modules_of(graph, name)}
    imports: dict[str, set[str]] = {name: set() for name in names}
    for module, name in owners.items():
        imported = graph.find_modules_directly_imported_by(module)
        imports[name] |= {owners[package] for package in imported if package in owners} - {name}
    width = max(map(len, names))
    return "".join(
        f"{name:<{width}} ──> {', '.join(sorted(imports[name], key=names.index))}\n"
        for name in names
        if imports[name]
    )
