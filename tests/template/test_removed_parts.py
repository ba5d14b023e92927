"""A copy of this project works without any of its parts, and without all of them."""

import re
from pathlib import Path

import pytest

import example_service
from scripts.template.parts import Part, load_parts
from scripts.template.rename import RECORD
from scripts.template.repository import git
from scripts.template.without import chosen_parts, correct_pages, remove
from tests.docs.pages import broken_links
from tests.template.copies import ROOT, copy_project, run_in

PARTS = load_parts()
pytestmark = [
    pytest.mark.bake,
    pytest.mark.skipif((ROOT / RECORD).exists(), reason="this project has been renamed"),
    pytest.mark.skipif(
        any(part.is_gone(ROOT) for part in PARTS.values()), reason="a part has been removed"
    ),
]
ALL = " ".join(PARTS)
CHOSEN = [
    "tests/test_house.py::test_import_contracts_are_kept",
    *(
        "tests/test_architecture.py",
        "tests/docs/test_reference.py",
        "tests/api/test_application.py",
    ),
]
"""Tests of the contracts, of the pages and of the whole application."""
FAST = "not integration and not alone and not bake"


def removal(factory: pytest.TempPathFactory, names: str) -> tuple[Path, list[Part]]:
    """A copy without some parts, formatted as `make without` does; and the removed parts."""
    folder = factory.mktemp("without") / "copy"
    copy_project(folder)
    parts = chosen_parts(names, PARTS, folder)
    left = [edit for part in parts for edit in remove(folder, part, PARTS.values())]
    assert list(map(str, left)) == []
    run_in(folder, "ruff", "check", "--fix-only", "--quiet")
    run_in(folder, "ruff", "format", "--quiet")
    correct_pages(folder)
    git(folder, "add", "--all")
    return folder, parts


@pytest.fixture(scope="module", params=PARTS)
def removed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Part]]:
    """A copy without one part and without those that must be removed before it."""
    return removal(tmp_path_factory, " ".join((*PARTS[request.param].first, request.param)))


@pytest.fixture(scope="module")
def without_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy without any of the parts."""
    return removal(tmp_path_factory, ALL)[0]


def test_removed_files_are_not_mentioned(removed: tuple[Path, list[Part]]) -> None:
    """No import, path or link names them, except in the changelog and in the lists of parts."""
    folder, parts = removed
    gone = [path for part in parts for path in part.delete]
    modules = [path.removesuffix(".py").replace("/", ".") for path in gone]
    words = [re.escape(word) for word in (*gone, *modules) if "/" in word or word.count(".") > 1]
    trace = re.compile(rf"(?<![\w./-])(?:{'|'.join(words)})(?![\w-])")
    names = [
        name
        for name in git(folder, "ls-files").splitlines()
        if name != "CHANGELOG.md" and not name.startswith("scripts/template/parts/")
    ]

    found = [
        f"{name}: {mention[0]}"
        for name in names
        for mention in trace.finditer((folder / name).read_bytes().decode(errors="replace"))
    ]
    assert found == []


def test_the_rest_fits_together(removed: tuple[Path, list[Part]]) -> None:
    """Style, imports, the application and the links between pages are intact."""
    folder, _ = removed
    run_in(folder, "ruff", "check", "--quiet")
    run_in(
        folder, "python", "-c", f"from {example_service.__name__}.main import app, enabled_domains"
    )
    pages = [folder / name for name in git(folder, "ls-files", "*.md").splitlines()]
    assert [link for page in pages for link in broken_links(page)] == []


def test_without_any_part_the_pages_are_correct(without_all: Path) -> None:
    """Contracts, trees, drawings and tables match strictly, so nothing can be forgotten."""
    run_in(without_all, "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *CHOSEN)


@pytest.mark.removal
def test_the_rest_passes_its_tests(removed: tuple[Path, list[Part]]) -> None:
    """All remaining fast tests pass."""
    folder, _ = removed
    run_in(folder, "python", "-m", "pytest", "-q", "-m", FAST)
