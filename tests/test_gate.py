"""The gate, the Python versions that it installs, and the workflows that run it."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.project import ROOT, make, run


@pytest.fixture
def gate(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the gate with a fake make that prints its targets, and every Python except 3.11."""
    for name, text in {
        "scripts/find-python.sh": 'test "${1:-}" != 3.11',
        ".venv/bin/python": "echo 3.13.5",
        "tests/test_clocks.py": "@pytest.mark.alone",
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
    """All steps run, the missing Python is named, and the last line is that of pytest."""
    closing = "==== 12 passed, 1 skipped in 3.45s ===="

    ended = gate(closing=closing)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.findall(r"(?m)^made (.*)$", ended.stdout) == [
        *("environment", "lint", "coverage", "test-3.13t", "test"),
    ]
    assert "fast tests on Python 3.11: not run, this machine has no Python 3.11" in ended.stdout
    assert ended.stdout.splitlines()[-1] == closing


@pytest.mark.parametrize("failing", ["lint", "coverage", "test-3.13t", "test"])
def test_a_failing_step_fails_the_gate_but_does_not_stop_the_others(
    gate: Callable[..., subprocess.CompletedProcess[str]], failing: str
) -> None:
    """The steps after it still run, and the summary says which step failed."""
    ended = gate(failing, closing="==== 1 failed, 2 passed in 3.45s ====")

    verdicts = re.findall(r"(?m) \d+ s  (.*)$", ended.stdout.partition("--- summary")[2])
    assert ended.returncode == 1
    assert "made test\n" in ended.stdout
    assert sorted(verdicts) == ["FAILED (1)"] + 8 * ["passed"]


def test_no_step_runs_without_an_environment(
    gate: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """If the environment cannot be built, the results of other steps would be meaningless."""
    ended = gate("environment")

    assert ended.returncode == 1
    assert re.findall(r"(?m)^made (.*)$", ended.stdout) == ["environment"]


@pytest.mark.parametrize("version", ["3.14", "3.13t"])
def test_a_python_that_cannot_be_installed_costs_one_line(tmp_path: Path, version: str) -> None:
    """Without apt-get, one line says why, and no incomplete Python is left behind."""
    for program in ("bash", "flock", "mkdir", "head"):
        found = shutil.which(program)
        assert found is not None
        (tmp_path / program).symlink_to(found)

    got = run("bash", ".ci/get-python.sh", version, str(tmp_path / "python"), PATH=str(tmp_path))

    assert (got.returncode, got.stdout) == (1, "")
    assert got.stderr == f"Python {version} cannot be had here: this takes apt-get and root\n"
    assert not (tmp_path / "python/complete").exists()


def test_an_installed_python_is_left_alone(tmp_path: Path) -> None:
    """A second run of the gate finds the Python of the first one, without network access."""
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
    """A tag can be moved to other code, and a digest cannot; a comment shows the tag."""
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
    """The workflow installs every Python of the gate, with the project's own as the default."""
    steps = [step for path, step in workflow_steps() if path.name == "ci.yml"]
    [setup] = [step["with"] for step in steps if "setup-python" in step.get("uses", "")]
    versions = setup["python-version"]
    gate = (ROOT / ".ci/run").read_text()
    wanted = re.findall(r"(?m)^tests_on (\S+) ", gate)

    assert steps[-1]["run"] == ".ci/run"
    assert versions.split()[-1] == (ROOT / ".python-version").read_text().strip()
    assert set(versions.split()) == {*wanted, versions.split()[-1]}


def test_hooks_and_workflows_call_targets_that_exist() -> None:
    """Hooks and workflows run the same commands as developers do."""
    hooks = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    runs = [hook["entry"] for hook in hooks] + [step.get("run", "") for _, step in workflow_steps()]
    targets = re.findall(r"(?m)^make ([a-z-]+)", "\n".join(runs))

    assert {"lint", "test-fast", "lock"} <= set(targets)
    for target in targets:
        assert make("--dry-run", target, cwd=ROOT).returncode == 0, target
