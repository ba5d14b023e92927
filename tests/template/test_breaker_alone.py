"""The breaker in another project: what the page lists is all that it takes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from example_service.infra import resilience
from tests.docs.pages import ROOT, table_rows

pytestmark = pytest.mark.one_python

LISTED = [path for path, _ in table_rows(ROOT / "docs" / "clone.md", "breaker")]
FOLDER = ROOT / Path(*resilience.__name__.split("."))
OF_OTHERS = [Path(path).stem for path in LISTED if Path(path).parent == FOLDER.relative_to(ROOT)]
GUARDS = """
import asyncio, importlib, pkgutil
import shop.breaker
from shop.breaker import CircuitBreaker, CircuitOpenError, FailureRate

for module in pkgutil.walk_packages(shop.breaker.__path__, "shop.breaker."):
    importlib.import_module(module.name)

breaker = CircuitBreaker("stock", failure_threshold=2, failure_rate=FailureRate())

@breaker.protected
async def stock(pieces):
    return 10 / pieces

async def outcomes():
    for pieces in (2, 0, 0, 1):
        try:
            print(await stock(pieces))
        except (ZeroDivisionError, CircuitOpenError) as error:
            print(type(error).__name__)

asyncio.run(outcomes())
print(breaker.get_metrics()["state"])
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Another project, with the folder of the breaker under a name of its own."""
    folder = tmp_path / "shop" / "breaker"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for module in folder.rglob("*.py"):
        text = module.read_text("utf-8")
        module.write_text(text.replace(resilience.__name__, "shop.breaker"), "utf-8")
    return tmp_path


def run_in(project: Path, program: str, *options: str) -> list[str]:
    """The lines that a program prints which sees nothing but the project, and what options say."""
    beginning = f"import sys\nsys.path.insert(0, {str(project)!r})\n"
    command = [sys.executable, "-I", *options, "-W", "error", "-c", beginning + program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_it_guards_calls_with_the_standard_library_alone(shop: Path) -> None:
    """Every module can be imported then, but for those that the page says need a package."""
    for name in OF_OTHERS:
        (shop / "shop" / "breaker" / f"{name}.py").unlink()

    printed = run_in(shop, GUARDS, "-S")

    assert printed == ["5.0", "ZeroDivisionError", "ZeroDivisionError", "CircuitOpenError", "open"]


def test_the_modules_for_other_libraries_work_there_too(shop: Path) -> None:
    """With the packages of the environment, and without this project."""
    imports = "".join(f"import shop.breaker.{name}\n" for name in OF_OTHERS)
    printed = run_in(shop, f"{imports}print(*sorted(sys.modules))")

    assert OF_OTHERS
    assert resilience.__name__.partition(".")[0] not in printed


def test_the_page_names_what_is_there() -> None:
    """A module that moves takes its line with it."""
    assert [path for path in LISTED if not (ROOT / path).exists()] == []
