"""The house around the code: commands, locks, contracts and papers agree with each other."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

import example_service
from scripts import lint
from tests.ports import lasting_port

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = [
    "requirements.lock",
    "requirements-breaker.lock",
    "requirements-dev.lock",
    "requirements-bench.lock",
]
# Written in two halves, so that this file does not mention what it looks for.
MACHINE_PATHS = "|".join(["/ro" + "ot/", "/ho" + "me/", "/Us" + r"ers/\w", r"[A-Z]:\\Us" + "ers"])
INDEX_HOSTS = "|".join(["pypi" + r"\.org", "python" + "hosted", "index" + "-url"])


def run(*command: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with the given variables on top of the present ones."""
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environ, capture_output=True, text=True, check=False
    )


def make(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run make; quietly, because within another make it would name the directory it enters."""
    return run("make", "--no-print-directory", *arguments, cwd=cwd, **environ)


def files_of_the_project() -> list[Path]:
    """Every text file that is committed or would be by `git add --all`."""
    listing = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert listing.returncode == 0, listing.stderr
    return [path for name in listing.stdout.split("\0") if (path := ROOT / name).is_file()]


# --- the Makefile

PARALLEL = "--numprocesses auto --dist worksteal"
BREAKER_ALONE = (
    "--confcutdir=tests/unit/infra/resilience -p example_service.infra.resilience.testing "
    "--ignore-glob=*/test_state_machine.py tests/unit/infra/resilience"
)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A folder with our Makefile whose environment is ready and whose Python tells its call."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name, text in {
        "scripts/find-python.sh": 'echo "$PWD/true"',
        "true": "exit 0",
        ".venv/bin/python": 'echo "$PWD: $*"; env',
        ".venv-run/bin/python": 'echo "$PWD: $*"; env',
        ".venv-3.11/bin/python": 'echo "$PWD: $*"; env',
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
        ("test-fast", [f"-m pytest {PARALLEL} -m not integration"]),
        ("test-3.11", [f"-m pytest {PARALLEL} -m not integration"]),
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
    """`make -C` runs the commands in the project's folder, with the environment's Python."""
    made = make("-C", str(stage), target, cwd=Path("/"))

    assert (made.returncode, made.stderr) == (0, "")
    started = [line.rstrip() for line in made.stdout.splitlines() if line.startswith(f"{stage}: ")]
    assert started == [f"{stage}: {program}" for program in programs]


def test_make_hands_host_and_port_to_the_service(stage: Path) -> None:
    """HOST and PORT reach the service from the shell and from make's command line."""
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
def test_make_hands_arguments_to_pytest(stage: Path, arguments: str, options: str) -> None:
    """ARGS selects tests, and can switch the parallel run off."""
    made = make("test", f"ARGS={arguments}", cwd=stage)

    assert made.stdout.splitlines()[0] == f"{stage}: -m pytest {options}"


def test_make_ignores_an_activated_foreign_environment(stage: Path) -> None:
    """Variables that choose another environment do not reach the program."""
    foreign = dict.fromkeys(["PYTHONHOME", "PYTHONPATH", "UV_PYTHON", "VIRTUAL_ENV"], "/foreign")

    made = make("test", cwd=stage, **foreign, ARGS="foreign")

    assert made.stdout.splitlines()[0].rstrip() == f"{stage}: -m pytest {PARALLEL}"
    assert not [line for line in made.stdout.splitlines() if line.partition("=")[0] in foreign]


def test_make_starts_nothing_without_its_environment(stage: Path) -> None:
    """When no Python is found the reason is shown and the command fails."""
    finder = stage / "scripts" / "find-python.sh"
    finder.write_text('#!/bin/sh\necho "no Python here" >&2\nexit 1\n')

    made = make("test", cwd=stage)

    assert made.returncode != 0
    assert made.stdout == ""
    assert made.stderr.splitlines()[0] == "no Python here"


def test_make_help_lists_the_commands() -> None:
    """`make` alone names every command that a newcomer needs."""
    listed = [line.split()[0] for line in make(cwd=ROOT).stdout.splitlines()]

    assert {"run", "test", "test-fast", "lint", "format", "bench"} <= set(listed)


def test_makefile_recipes_are_thin() -> None:
    """A target is a few lines, such as one for each check; what needs more lives in a script."""
    recipes = re.findall(r"^\S+:.*\n((?:\t.*\n)*)", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert max(recipe.count("\n") for recipe in recipes) <= 6


@pytest.mark.parametrize(
    "name", [".ci/run", *(f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.*"))]
)
def test_scripts_can_be_started(name: str) -> None:
    """Scripts are executable and say what runs them."""
    assert os.access(ROOT / name, os.X_OK)
    assert (ROOT / name).read_text().startswith("#!")


# --- the start of the tests


def test_the_tests_begin_with_their_duration_and_what_is_missing() -> None:
    """On a machine without promtool and Chromium, pytest first says so, and how to get them."""
    started = run(sys.executable, "-m", "pytest", "--collect-only", __file__, PATH="/nowhere")

    header = started.stdout.partition("collected")[0]
    assert "duration: about " in header
    assert "promtool is not on PATH, and some tests need it: `apt-get install pro" in header
    assert "chromium is not on PATH, and some tests need it: `apt-get install chr" in header


def test_processes_of_one_run_take_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that comes back finds its port free, although other tests run meanwhile."""
    ports = []
    for process in ("gw0", "gw1", "gw19"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", process)
        ports.append({lasting_port() for _ in range(50)})

    assert all(port < 32_768 for port in set().union(*ports))
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(ports, 2))


# --- the checks of `make lint`


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the programs that are run as checks, in the place of the environment's."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(lint, "CHECKS", ("slow --strict", "quick", "missing"))
    for name, text in {
        "slow": 'sleep 0.1; echo "one finding of $0 $*"; exit 1',
        "quick": "echo nothing to see here",
        "missing": "echo another finding >&2; exit 2",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def test_every_check_runs_before_the_findings_are_listed(
    checks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One failing check hides no other, and the findings of all that failed come last."""
    status = lint.main()

    verdicts, *findings = capsys.readouterr().out.split("\n--- ")
    assert status == 1
    assert sorted(re.findall(r"(?m)^(\w+) in .*: (.*)$", verdicts)) == [
        ("FAILED", "missing"),
        ("FAILED", "slow --strict"),
        ("passed", "quick"),
    ]
    assert sorted(findings) == [
        "missing\nanother finding\n",
        f"slow --strict\none finding of {checks}/slow --strict\n",
    ]


@pytest.mark.usefixtures("checks")
def test_checks_that_find_nothing_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a finding the status is 0, and each check takes one line."""
    monkeypatch.setattr(lint, "CHECKS", ("quick",))

    status = lint.main()

    assert status == 0
    assert re.fullmatch(r"passed in +\d+\.\d s: quick\n", capsys.readouterr().out)


@pytest.mark.usefixtures("checks")
def test_a_check_names_files_by_patterns(
    checks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pattern stands for the project's files that match it, another word for itself."""
    (checks / "echo").write_text('#!/bin/sh\necho "$@"; exit 1\n')
    (checks / "echo").chmod(0o755)
    monkeypatch.setattr(lint, "CHECKS", ("echo --strict README* .github/workflows/c*.yml",))

    lint.main()

    shown = f"--strict {ROOT}/README.md {ROOT}/.github/workflows/ci.yml\n"
    assert capsys.readouterr().out.endswith(shown)


# --- the gate


@pytest.fixture
def gate(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the gate where make takes note of its targets, and every Python is there but 3.12."""
    for name, text in {
        "scripts/find-python.sh": 'test "${1:-}" != 3.12',
        ".venv/bin/python": "echo 3.13.5",
        "bin/chromium": "",
        "bin/prometheus": "",
        "bin/prometheus-alertmanager": "",
        "bin/promtool": "",
        "bin/make": 'echo "made $1"; [ "$1" != test ] || echo "$CLOSING"; [ "$1" != "$FAILING" ]',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")

    def started(failing: str = "", closing: str = "") -> subprocess.CompletedProcess[str]:
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        return run(
            *("bash", str(tmp_path / ".ci/run")),
            PATH=path,
            HOME=str(tmp_path),
            FAILING=failing,
            CLOSING=closing,
        )

    return started


def test_the_gate_ends_with_the_closing_line_of_the_full_suite(
    gate: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """All steps are run, the missing Python is named, and pytest's own line is the last one."""
    closing = "==== 12 passed, 1 skipped in 3.45s ===="

    ended = gate(closing=closing)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.findall(r"(?m)^made (.*)$", ended.stdout) == [
        *("environment", "lint", "test-3.11", "test-3.14", "test-3.13t", "coverage", "test"),
    ]
    assert "fast tests on Python 3.12: not run, this machine has no Python 3.12" in ended.stdout
    assert ended.stdout.splitlines()[-1] == closing


@pytest.mark.parametrize("failing", ["lint", "test-3.14", "coverage", "test"])
def test_a_failing_step_fails_the_gate_and_stops_no_other(
    gate: Callable[..., subprocess.CompletedProcess[str]], failing: str
) -> None:
    """The steps after it are run all the same, and the summary says which one it was."""
    ended = gate(failing, closing="==== 1 failed, 2 passed in 3.45s ====")

    verdicts = re.findall(r"(?m) \d+ s  (.*)$", ended.stdout.partition("--- summary")[2])
    assert ended.returncode == 1
    assert "made test\n" in ended.stdout
    assert sorted(verdicts) == ["FAILED (1)"] + 9 * ["passed"]


def test_nothing_is_tried_without_an_environment(
    gate: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Where the environment cannot be built, no other step says anything about the change."""
    ended = gate("environment")

    assert ended.returncode == 1
    assert re.findall(r"(?m)^made (.*)$", ended.stdout) == ["environment"]


@pytest.mark.parametrize("version", ["3.14", "3.13t"])
def test_a_python_that_cannot_be_had_costs_one_line(tmp_path: Path, version: str) -> None:
    """Without apt-get the gate reads why in one line, and no half-made Python remains in use."""
    for program in ("bash", "flock", "mkdir", "head"):
        found = shutil.which(program)
        assert found is not None
        (tmp_path / program).symlink_to(found)

    got = run("bash", ".ci/get-python.sh", version, str(tmp_path / "python"), PATH=str(tmp_path))

    assert (got.returncode, got.stdout) == (1, "")
    assert got.stderr == f"Python {version} cannot be had here: this takes apt-get and root\n"
    assert not (tmp_path / "python/complete").exists()


def test_a_python_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """A second run of the gate finds what the first one has got, without any network."""
    (tmp_path / "complete").touch()

    got = run("bash", ".ci/get-python.sh", "3.14", str(tmp_path))

    assert (got.returncode, got.stdout, got.stderr) == (0, "", "")


def workflow_steps() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each step of each workflow."""
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        for job in YAML(typ="safe").load(path)["jobs"].values():
            for step in job["steps"]:
                yield path, step


def test_actions_are_pinned_by_digest() -> None:
    """A tag can be moved to other code, a digest cannot; the tag stands beside it."""
    lines = [
        line.partition("uses: ")[2]
        for path in (ROOT / ".github/workflows").glob("*.yml")
        for line in path.read_text().splitlines()
        if "uses: " in line
    ]

    assert len(lines) >= 8
    pinned = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in lines if not pinned.fullmatch(line)] == []


def test_the_workflow_runs_the_gate_with_its_pythons() -> None:
    """All that the gate runs on is set up before it, with the project's own one as the default."""
    steps = [step for path, step in workflow_steps() if path.name == "ci.yml"]
    [setup] = [step["with"] for step in steps if "setup-python" in step.get("uses", "")]
    versions = setup["python-version"]
    gate = (ROOT / ".ci/run").read_text()
    loops = re.findall(r"(?m)^(?:for version in|tests_on) .*$", gate)
    wanted = re.findall(r"\b3\.\d+t?\b", "\n".join(loops))

    assert steps[-1]["run"] == ".ci/run"
    assert versions.split()[-1] == (ROOT / ".python-version").read_text().strip()
    assert set(versions.split()) == {*wanted, versions.split()[-1]}


def test_hooks_and_workflows_call_targets_that_exist() -> None:
    """What runs outside of a checkout's terminal runs the same commands as in it."""
    hooks = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    runs = [hook["entry"] for hook in hooks] + [step.get("run", "") for _, step in workflow_steps()]
    targets = re.findall(r"(?m)^make ([a-z-]+)", "\n".join(runs))

    assert {"lint", "test-fast", "lock"} <= set(targets)
    for target in targets:
        assert make("--dry-run", target, cwd=ROOT).returncode == 0, target


# --- the locks


def pins(lock: str) -> dict[str, set[str]]:
    """The versions that a lock pins, by normalised package name."""
    pinned: dict[str, set[str]] = defaultdict(set)
    for line in (ROOT / lock).read_text().splitlines():
        if found := re.match(r"([\w.-]+)(?:\[[^]]*\])?==([^\s;\\]+)", line):
            pinned[canonicalize_name(found[1])].add(found[2])
    return pinned


def requirements(group: str | None) -> list[Requirement]:
    """What pyproject.toml asks for: the runtime, and a dependency group with all it includes."""
    lines = list(PYPROJECT["project"]["dependencies"]) if group is None else []
    for entry in PYPROJECT["dependency-groups"][group] if group else []:
        if isinstance(entry, str):
            lines.append(entry)
        else:
            lines.extend(map(str, requirements(entry["include-group"])))
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(
    ("lock", "group"),
    [
        *((lock, None) for lock in LOCKS if lock != "requirements-breaker.lock"),
        ("requirements-breaker.lock", "breaker"),
        ("requirements-dev.lock", "dev"),
        ("requirements-bench.lock", "bench"),
    ],
)
def test_lock_pins_every_requirement(lock: str, group: str | None) -> None:
    """Each requirement of pyproject.toml is pinned by a version that satisfies it."""
    pinned = pins(lock)

    unmet = [
        str(requirement)
        for requirement in requirements(group)
        if not (versions := pinned.get(canonicalize_name(requirement.name)))
        or not all(requirement.specifier.contains(version) for version in versions)
    ]

    assert unmet == [], "run `make lock`"


@pytest.mark.parametrize("lock", ["requirements-dev.lock", "requirements-bench.lock"])
def test_lock_pins_the_build_backend(lock: str) -> None:
    """The project is installed without build isolation, so its backend must be in the lock."""
    names = [Requirement(line).name for line in PYPROJECT["build-system"]["requires"]]

    assert set(map(canonicalize_name, names)) <= pins(lock).keys()


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("requirements.lock", "requirements-dev.lock"),
        ("requirements.lock", "requirements-bench.lock"),
        ("requirements-breaker.lock", "requirements-dev.lock"),
    ],
)
def test_locks_agree_about_what_they_share(smaller: str, larger: str) -> None:
    """Tests and benchmarks run on the versions that are shipped, on every Python the same."""
    pinned, others = pins(smaller), pins(larger)

    assert {name: others.get(name) for name in pinned} == pinned


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_is_hashed_and_free_of_addresses(lock: str) -> None:
    """Every entry is an exact pin with its hashes: no address, no option, no local path."""
    text = re.sub(r"(?m)^ *#.*\n", "", (ROOT / lock).read_text())
    entries = text.replace("\\\n", " ").splitlines()
    entry = re.compile(r"[\w.-]+(\[[^]]*\])?==\S+( ; [^\\]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*")

    assert [line for line in entries if not entry.fullmatch(line)] == []
    assert "://" not in (ROOT / lock).read_text()


# --- contracts between the layers


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the import contracts of the package in a folder."""
    command = "from importlinter.cli import lint_imports_command as check; check()"
    return run(sys.executable, "-c", command, "--no-logo", "--no-cache", cwd=folder)


def test_import_contracts_are_kept() -> None:
    """Imports point one way, and the breaker's heart stays free of frameworks."""
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
def test_a_stray_import_breaks_a_contract(tmp_path: Path, package: str, stray: str) -> None:
    """One import against the direction is noticed, and named."""
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


# --- papers


def test_no_file_mentions_a_machine_or_a_package_index() -> None:
    """The project depends on no one's folders and on no particular index."""
    forbidden = re.compile(f"{MACHINE_PATHS}|{INDEX_HOSTS}")

    mentions = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files_of_the_project()
        for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1)
        if forbidden.search(line)
    ]

    assert mentions == []


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
def test_git_ignores_what_is_made_and_keeps_what_is_written(name: str, ignored: bool) -> None:
    """Secrets, environments and data stay out of the repository; templates and locks stay in."""
    asked = run("git", "check-ignore", "--quiet", "--no-index", name)

    assert asked.returncode == (0 if ignored else 1)


def test_preferred_python_is_supported() -> None:
    """The version in .python-version is one that the project declares it runs on."""
    preferred = (ROOT / ".python-version").read_text().strip()

    assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains(preferred)


def test_changelog_starts_with_the_present_version() -> None:
    """The newest entry is about the version that the package reports."""
    headings = re.findall(r"(?m)^## (\S+)", (ROOT / "CHANGELOG.md").read_text())

    assert headings[0] == example_service.__version__


def test_changelog_sections_come_in_their_order() -> None:
    """Each version tells what may hurt first, and uses no other sections."""
    order = ["Security", "Removed", "Deprecated", "Added", "Changed", "Fixed"]

    for entry in (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1:]:
        sections = re.findall(r"(?m)^### (.+)$", entry)
        assert sections == [name for name in order if name in sections]
