"""A renamed copy of this project works, and the old name occurs nowhere."""

import re
from pathlib import Path

import pytest

import example_service
from scripts.template.project_name import MAX_LETTERS, Name, present_name
from scripts.template.rename import RECORD, rename
from scripts.template.repository import git
from tests.template.copies import ROOT, copy_project, run_in

pytestmark = [
    pytest.mark.bake,
    pytest.mark.skipif((ROOT / RECORD).exists(), reason="this project has been renamed"),
]
NAME = Name(("warehouse", "order", "archives"))
# The tests that depend on a name used to import, install, call, log or deploy something.
CHOSEN = [
    *("tests/test_public_names.py", "tests/test_architecture.py", "tests/test_kubernetes.py"),
    *("tests/test_image.py", "tests/docs/test_reference.py", "tests/docs/test_docstrings.py"),
    *("tests/unit/cli", "tests/unit/core/test_exceptions.py", "tests/unit/core/test_logging.py"),
    *("tests/api/test_application.py", "tests/api/test_api_docs.py", "tests/api/test_health.py"),
    "tests/unit/infra/http/test_client.py",
]
TOUR = "tests/docs/test_commands.py::test_commands_of_a_page_answer_as_shown[README.md]"


@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with the longest possible name, formatted as `make rename` does."""
    folder = tmp_path_factory.mktemp("renamed") / "copy"
    copy_project(folder)
    rename(folder, NAME, "0" * 40)
    run_in(folder, "ruff", "check", "--fix-only", "--quiet")
    run_in(folder, "ruff", "format", "--quiet")
    git(folder, "add", "--all")
    return folder


def test_no_trace_of_the_old_name_remains(renamed: Path) -> None:
    """It is in no file or file name, including hidden files and names split over two lines."""
    words = present_name(ROOT).words
    trace = re.compile(r"[-_\W]*".join(words).encode(), re.IGNORECASE)
    names = git(renamed, "ls-files", "-z").split("\0")[:-1]

    assert len(NAME.package) == MAX_LETTERS
    assert [name for name in names if trace.search((renamed / name).read_bytes())] == []
    assert [name for name in names if trace.search(name.encode())] == []
    assert not (renamed / example_service.__name__).exists()


def test_renamed_project_passes_every_check_of_its_sources(renamed: Path) -> None:
    """`make lint` finds nothing: style, types, contracts, image, compose file and workflows."""
    run_in(renamed, "python", "scripts/lint.py")


def test_renamed_project_passes_its_tests(renamed: Path) -> None:
    """These are the fast tests for which the name matters."""
    run_in(renamed, "python", "-m", "pytest", "-q", "-m", "not integration", *CHOSEN)


def test_the_tour_works_in_a_renamed_project(renamed: Path) -> None:
    """The commands of its README start the service, with the answers shown on the page."""
    run_in(renamed, "python", "-m", "pytest", "-q", TOUR)
