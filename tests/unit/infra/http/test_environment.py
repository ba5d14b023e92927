"""Environment variables that prevent the HTTP client from being created."""

import io
import os
import socket
from pathlib import Path

import httpx
import pytest

from example_service.cli import main
from example_service.cli.doctor import doctor
from example_service.infra.http.client import create_http_client
from example_service.infra.http.environment import environment_problems, ignored_networks


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
        ("SSL_CERT_DIR", os.path.dirname(__file__), "openssl rehash"),  # noqa: PTH120
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


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "All_Proxy"])
@pytest.mark.parametrize(
    "value",
    [
        "http://[bad",
        "http://",
        "http:///",
        "http://:3128",
        "http://user@:3128",
        "http:/proxy:3128",
        "//proxy:3128",
        "http://proxy:99999",
        "http://proxy:0",
        "http://proxy:-1",
        "http://proxy:1_0",
        "http://proxy:3128 ",
        " http://proxy:3128",
        "http://proxy 3128",
        "http://%zz",
        "http://.",
        "socks4://proxy:1080",
        "direct://",
    ],
)
def test_a_proxy_needs_a_known_scheme_and_a_host(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise httpx would accept most of these, and every call would fail."""
    monkeypatch.setenv(name, value)

    (problem,) = environment_problems()

    assert problem.variable == name
    assert "names a host" in problem.problem


@pytest.mark.parametrize(
    "value",
    [
        "proxy:3128",
        "http://proxy.internal",
        "HTTP://proxy:3128/",
        "https://user:p%40ss@proxy:3128",
        "http://127.0.0.1:3128",
        "http://[::1]:3128",
        "[::1]:3128",
        "http://bücher.example:3128",
    ],
)
def test_each_form_of_a_proxy_is_accepted(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheme, the port and the credentials of a proxy are optional."""
    monkeypatch.setenv("https_proxy", value)

    assert environment_problems() == []


@pytest.mark.parametrize(
    "entry", ["10.0.0.0/33", "[bad", "http://[bad", "a b", "user@host", "host:99999", "h:x"]
)
def test_an_unreadable_exception_is_named(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry of NO_PROXY that matches no host would send calls through the proxy."""
    monkeypatch.setenv("no_proxy", f"localhost,{entry}")

    (problem,) = environment_problems()

    assert problem.variable == "no_proxy"
    assert "cannot be read" in problem.problem


def test_each_form_of_an_exception_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs read networks and stars, so these must not stop the service."""
    entries = (
        "*, localhost ,.internal,*.svc,db:5432,http://api.example.com,10.1.2.3,::1,,"
        "10.0.0.0/8,10.1.2.3/8,10.0.0.0/255.0.0.0,fd00::/8"
    )
    monkeypatch.setenv("NO_PROXY", entries)

    assert environment_problems() == []


def test_usable_variables_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An IPv6 address without brackets is accepted, because httpx can read it."""
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1,::1,.internal")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy:3128")
    (tmp_path / "5ed36f99.0").touch()
    monkeypatch.setenv("SSL_CERT_DIR", os.pathsep.join(["/no/such/directory", str(tmp_path)]))
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


def test_networks_are_hints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variable of a whole cluster must not stop the service."""
    monkeypatch.setenv("no_proxy", ".svc,10.96.0.0/12,fd00::/8,10.1.2.3")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    report = io.StringIO()

    doctor(report)

    (row,) = [line for line in report.getvalue().splitlines() if "no_proxy" in line]
    assert "list host names or addresses instead of 10.96.0.0/12, fd00::/8" in row
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 1
    assert '"variable":"no_proxy","networks":["10.96.0.0/12","fd00::/8"]' in capsys.readouterr().out


def test_networks_do_not_matter_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to except from a proxy that is not set."""
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")

    assert ignored_networks() == {}


async def test_a_client_is_created_with_any_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are left out, and `*.svc` means the same as `.svc`."""
    monkeypatch.setenv("NO_PROXY", "fd00::/8,10.0.0.0/8,*.svc,db.internal")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    async with create_http_client() as client:
        urls = [f"http://{host}:9/" for host in ("a.svc", "db.internal", "10.1.2.3", "[fd00::1]")]
        direct = client._transport_for_url(httpx.URL("http://localhost/"))
        found = [client._transport_for_url(httpx.URL(url)) is direct for url in urls]

    assert found == [True, True, False, False]
    assert os.environ["NO_PROXY"] == "fd00::/8,10.0.0.0/8,*.svc,db.internal"
