"""`make lint` runs every check and then lists the findings."""

import re
import sys
from pathlib import Path

import pytest

from scripts import lint
from tests.project import ROOT


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of fake checks, which replace the programs of the environment."""
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
    """A failing check does not hide others, and all findings are listed at the end."""
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
    """Without findings, the exit status is 0, and each check prints one line."""
    monkeypatch.setattr(lint, "CHECKS", ("quick",))

    status = lint.main()

    assert status == 0
    assert re.fullmatch(r"passed in +\d+\.\d s: quick\n", capsys.readouterr().out)


@pytest.mark.usefixtures("checks")
def test_a_check_names_files_by_patterns(
    checks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pattern is replaced by the matching files of the project; other words stay as they are."""
    (checks / "echo").write_text('#!/bin/sh\necho "$@"; exit 1\n')
    (checks / "echo").chmod(0o755)
    monkeypatch.setattr(lint, "CHECKS", ("echo --strict README* .github/workflows/c*.yml",))

    lint.main()

    shown = f"--strict {ROOT}/README.md {ROOT}/.github/workflows/ci.yml\n"
    assert capsys.readouterr().out.endswith(shown)
