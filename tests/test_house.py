"""The rules of the project: import contracts, changelog and files."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import example_service
from tests.project import PYPROJECT, ROOT, run

pytestmark = pytest.mark.one_python

# These are written in two halves, so that this file does not match itself.
MACHINE_PATHS = "|".join(["/ro" + "ot/", "/ho" + "me/", "/Us" + r"ers/\w", r"[A-Z]:\\Us" + "ers"])
INDEX_HOSTS = "|".join(["pypi" + r"\.org", "python" + "hosted", "index" + "-url"])


def files_of_the_project() -> list[Path]:
    """Every text file that is committed, or would be with `git add --all`."""
    listing = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert listing.returncode == 0, listing.stderr
    return [path for name in listing.stdout.split("\0") if (path := ROOT / name).is_file()]


# --- contracts between the layers


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the import contracts of the package in this folder."""
    command = "from importlinter.cli import lint_imports_command as check; check()"
    return run(sys.executable, "-c", command, "--no-logo", "--no-cache", cwd=folder)


def test_import_contracts_are_kept() -> None:
    """Imports go in one direction, and the core of the breaker imports no framework."""
    checked = lint_imports(ROOT)

    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("package", "stray"),
    [
        ("core", "import example_service.infra"),
        ("core", "import starlette"),
        ("infra", "import example_service.api"),
        ("api", "import example_service.domain"),
        ("infra/resilience", "import fastapi"),
        ("infra/resilience", "import prometheus_client"),
        ("infra/resilience", "import structlog"),
        ("infra/resilience", "import example_service.infra.metrics"),
        ("infra/resilience", "import example_service.core"),
        ("api", "import example_service.main"),
    ],
)
def test_a_forbidden_import_breaks_a_contract(tmp_path: Path, package: str, stray: str) -> None:
    """An import in the wrong direction is reported by name."""
    shutil.copytree(
        ROOT / "example_service",
        tmp_path / "example_service",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "example_service" / package / "stray.py").write_text(f"{stray}\n")

    checked = lint_imports(tmp_path)

    assert checked.returncode != 0
    assert f"example_service.{package.replace('/', '.')}.stray" in checked.stdout


# --- files


def lines_that_match(pattern: str) -> list[str]:
    """The lines of the project in which this is found, with file and number."""
    sought = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files_of_the_project()
        for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1)
        if sought.search(line)
    ]


def test_no_file_mentions_a_machine_or_a_package_index() -> None:
    """The project does not depend on anyone's folders, nor on a particular index."""
    assert lines_that_match(f"{MACHINE_PATHS}|{INDEX_HOSTS}") == []


def test_no_file_has_the_marks_of_a_merge_conflict() -> None:
    """Text that git could not merge is easily committed with both versions."""
    assert lines_that_match("^<{7} |^>{7} ") == []


@pytest.mark.parametrize(
    ("name", "ignored"),
    [
        (".env", True),
        ("production.env", True),
        ("deploy/staging.env", True),
        (".venv/bin/python", True),
        (".venv-bench/bin/python", True),
        ("var/database.sqlite3", True),
        (".coverage", True),
        (".env.example", False),
        ("requirements-dev.lock", False),
        (".python-version", False),
    ],
)
def test_git_ignores_generated_files_and_secrets(name: str, ignored: bool) -> None:
    """Secrets, environments and data are ignored; templates and locks are committed."""
    asked = run("git", "check-ignore", "--quiet", "--no-index", name)

    assert asked.returncode == (0 if ignored else 1)


def test_preferred_python_is_supported() -> None:
    """The project declares support for the version in .python-version."""
    preferred = (ROOT / ".python-version").read_text().strip()

    assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains(preferred)


def test_changelog_starts_with_the_current_version() -> None:
    """The newest entry is for the version that the package reports."""
    headings = re.findall(r"(?m)^## (\S+)", (ROOT / "CHANGELOG.md").read_text())

    assert headings[0] == example_service.__version__


def test_changelog_sections_are_in_order() -> None:
    """Each version lists breaking changes first, and uses no other sections."""
    order = ["Security", "Removed", "Deprecated", "Added", "Changed", "Fixed"]

    for entry in (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1:]:
        sections = re.findall(r"(?m)^### (.+)$", entry)
        assert sections == [name for name in order if name in sections]
