"""The commands of the Makefile, and the header of a test run."""

import itertools
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import pytest_report_header, pytest_xdist_auto_num_workers
from tests.ports import lasting_port
from tests.project import ROOT, make

# --- the Makefile


PARALLEL = "--numprocesses auto --dist worksteal"
FAST = "not integration and not alone and not bake"
ON_EACH_PYTHON = f"{FAST} and not one_python"
BREAKER_ALONE = (
    "--confcutdir=tests/unit/infra/resilience -p example_service.infra.resilience.testing "
    "--ignore-glob=*/test_state_machine.py tests/unit/infra/resilience"
)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A folder with our Makefile, and a fake Python that prints its arguments."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name, text in {
        "scripts/find-python.sh": 'echo "$PWD/true"',
        "true": "exit 0",
        ".venv/bin/python": 'echo "$PWD: $*"; env',
        ".venv-run/bin/python": 'echo "$PWD: $*"; env',
        ".venv-3.11/bin/python": 'echo "$PWD: $*"; env',
        ".venv-3.14/bin/python": 'echo "$PWD: $*"; env',
        ".venv-3.13t/bin/python": 'echo "$PWD: $*"; env',
        ".venv-bench/bin/python": 'echo "$PWD: $*"; env',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "programs"),
    [
        ("run", ["-m example_service migrate", "-m example_service serve"]),
        ("test", [f"-m pytest {PARALLEL}"]),
        ("test-fast", [f"-m pytest {PARALLEL} -m {FAST}"]),
        ("test-3.11", [f"-m pytest {PARALLEL} -m {ON_EACH_PYTHON}"]),
        (
            "coverage",
            [
                f"-m coverage run -m pytest {PARALLEL} -m {ON_EACH_PYTHON}",
                "-m coverage combine --quiet",
                "-m coverage report",
            ],
        ),
        (
            "test-3.13t",
            [f"-m pytest {PARALLEL} {BREAKER_ALONE}"],
        ),
        ("lint", ["scripts/lint.py"]),
        ("bench", ["-m benchmarks"]),
        ("chaos", ["-m tests.chaos"]),
    ],
)
def test_make_starts_the_program_from_any_directory(
    stage: Path, target: str, programs: list[str]
) -> None:
    """`make -C` runs commands in the project's folder, with the Python of the environment."""
    made = make("-C", str(stage), target, cwd=Path("/"))

    assert (made.returncode, made.stderr) == (0, "")
    started = [line.rstrip() for line in made.stdout.splitlines() if line.startswith(f"{stage}: ")]
    assert started == [f"{stage}: {program}" for program in programs]


def test_make_passes_host_and_port_to_the_service(stage: Path) -> None:
    """HOST and PORT can be set in the shell or on the command line of make."""
    made = make("run", "PORT=9999", cwd=stage, HOST="0.0.0.0")  # noqa: S104

    assert {"PORT=9999", "HOST=0.0.0.0"} <= set(made.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("-k half_open", f"{PARALLEL} -k half_open"),
        ("-x tests/test_house.py", f"{PARALLEL} -x tests/test_house.py"),
        ("-p no:xdist -x", "-p no:xdist -x"),
    ],
)
def test_make_passes_arguments_to_pytest(stage: Path, arguments: str, options: str) -> None:
    """ARGS can select tests, and disable parallel runs."""
    made = make("test", f"ARGS={arguments}", cwd=stage)

    assert made.stdout.splitlines()[0] == f"{stage}: -m pytest {options}"


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("new", {"NAME": "it's $HOME; orders", "DIR": "../a b", "HISTORY": "keep"}),
        ("rename", {"NAME": "order desk"}),
    ],
)
def test_make_passes_a_name_to_the_script(
    stage: Path, target: str, arguments: dict[str, str]
) -> None:
    """The name arrives unchanged, and environment variables do not replace it."""
    (stage / "true").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')

    made = make(
        target,
        *(f"{name}={value.replace('$', '$$')}" for name, value in arguments.items()),
        cwd=stage,
        DIR="elsewhere",
        HISTORY="none",
    )

    assert made.stdout.splitlines() == ["-m", f"scripts.template.{target}", *arguments.values()]


def test_make_ignores_an_activated_foreign_environment(stage: Path) -> None:
    """Variables that point to another environment do not reach the program."""
    foreign = dict.fromkeys(["PYTHONHOME", "PYTHONPATH", "UV_PYTHON", "VIRTUAL_ENV"], "/foreign")

    made = make("test", cwd=stage, **foreign, ARGS="foreign")

    assert made.stdout.splitlines()[0].rstrip() == f"{stage}: -m pytest {PARALLEL}"
    assert not [line for line in made.stdout.splitlines() if line.partition("=")[0] in foreign]


def test_make_starts_nothing_without_its_environment(stage: Path) -> None:
    """If no Python is found, the reason is shown and the command fails."""
    finder = stage / "scripts" / "find-python.sh"
    finder.write_text('#!/bin/sh\necho "no Python here" >&2\nexit 1\n')

    made = make("test", cwd=stage)

    assert made.returncode != 0
    assert made.stdout == ""
    assert made.stderr.splitlines()[0] == "no Python here"


def test_make_help_lists_the_commands() -> None:
    """`make` without a target lists every command that a newcomer needs."""
    listed = [line.split()[0] for line in make(cwd=ROOT).stdout.splitlines()]

    assert {"run", "test", "test-fast", "lint", "format", "bench"} <= set(listed)


def test_makefile_recipes_are_thin() -> None:
    """A target has only a few lines; anything longer is a script."""
    recipes = re.findall(r"^\S+:.*\n((?:\t.*\n)*)", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert max(recipe.count("\n") for recipe in recipes) <= 6


@pytest.mark.parametrize(
    "name", [".ci/run", *(f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.*"))]
)
def test_scripts_can_be_started(name: str) -> None:
    """Scripts are executable and start with a shebang."""
    assert os.access(ROOT / name, os.X_OK)
    assert (ROOT / name).read_text().startswith("#!")


# --- the header of a test run


def test_the_tests_begin_with_their_duration_and_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without promtool and Chromium, the header says how to install them."""
    monkeypatch.setenv("PATH", "/nowhere")

    header = "\n".join(pytest_report_header())

    assert header.startswith("duration: about ")
    assert "promtool is missing, and some tests need it: `apt-get install pro" in header
    assert "chromium is missing, and some tests need it: `apt-get install chr" in header


@pytest.mark.parametrize(
    ("marks", "workers"),
    [(FAST, 4), ("not image and not alone", 8), ("", 8)],
)
def test_waiting_tests_share_a_processor(marks: str, workers: int) -> None:
    """Only tests without servers run with exactly one process per processor."""
    config: Any = SimpleNamespace(option=SimpleNamespace(markexpr=marks))

    hook = pytest_xdist_auto_num_workers(config)
    next(hook)
    with pytest.raises(StopIteration) as returned:
        hook.send(4)

    assert returned.value.value == workers


def test_processes_of_one_run_take_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that restarts finds its port free, even while other tests run."""
    ports = []
    for process in ("gw0", "gw1", "gw19"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", process)
        ports.append({lasting_port() for _ in range(50)})

    assert all(port < 32_768 for port in set().union(*ports))
    assert all(some.isdisjoint(other) for some, other in itertools.combinations(ports, 2))
