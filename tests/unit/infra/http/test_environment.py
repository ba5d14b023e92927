"""Environment variables that prevent the HTTP client from being created."""

import io
import os
from pathlib import Path

import pytest

from example_service.cli import main
from example_service.cli.doctor import doctor
from example_service.infra.http.environment import environment_problems


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without any of these variables."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith("SSL"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("NO_PROXY", "localhost,[::1]", "IPv6"),
        ("no_proxy", "[fd00::1]:80", "IPv6"),
        ("ALL_PROXY", "socks5://127.0.0.1:1080", "SOCKS"),
        ("HTTPS_PROXY", "ftp://proxy:21", "http://"),
        ("http_proxy", "http://proxy:port", "http://"),
        ("SSL_CERT_FILE", "/no/such/file.pem", "No such file"),
        ("SSL_CERT_FILE", __file__, "PEM"),
        ("SSL_CERT_DIR", "/no/such/directory", "does not exist"),
    ],
)
def test_an_unusable_variable_is_named(
    name: str,
    value: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The doctor reports it as a fault, and `serve` exits with status 2."""
    monkeypatch.setenv(name, value)
    report = io.StringIO()

    (problem,) = environment_problems()
    assert problem.variable == name
    assert reason in problem.problem
    assert doctor(report) == 1
    assert f"{name} " in report.getvalue()
    assert main(["serve"]) == 2
    assert f"{name} " in capsys.readouterr().err


def test_usable_variables_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An IPv6 address without brackets is accepted, because httpx can read it."""
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1,::1,.internal")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy:3128")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SOMEBODY_ELSES_PROXY", "ftp://")

    assert environment_problems() == []


def test_every_problem_is_found_and_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reporting one at a time would take many starts; the URL of a proxy may have a password."""
    monkeypatch.setenv("ALL_PROXY", "ftp://user:hunter2@proxy")
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")

    found = environment_problems()

    assert {problem.variable for problem in found} == {"ALL_PROXY", "SSL_CERT_FILE"}
    assert "hunter2" not in str(found)
    assert os.environ["ALL_PROXY"] == "ftp://user:hunter2@proxy"
