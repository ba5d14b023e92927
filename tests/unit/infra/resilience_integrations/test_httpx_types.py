"""The transport passes type checks in projects with only one of the two libraries.

With both, `make lint` checks all other tests of the transport.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_python

pytest.importorskip("mypy")

ROOT = Path(__file__).resolve().parents[4]
USED_BY_BOTH = ("anyio", "certifi", "h11", "idna", "truststore")

PROGRAM = """
import LIBRARY
from example_service.infra.resilience.httpx import (
    CircuitBreakerTransport,
    CircuitOpenTransportError,
    is_failed_response,
    origin_of,
)


def host(request: LIBRARY.Request) -> str:
    return request.url.host


plain = LIBRARY.Client(transport=CircuitBreakerTransport(LIBRARY.HTTPTransport(), key=host))
transport = CircuitBreakerTransport(LIBRARY.AsyncHTTPTransport(), failure_threshold=2)
mounted = LIBRARY.AsyncClient(transport=transport, mounts={"https://": transport})
request = LIBRARY.Request("GET", "https://api.test")
name: str = transport.breaker_for(request).name + origin_of(request)
failed: bool = is_failed_response(LIBRARY.Response(503))
try:
    plain.send(request)
except CircuitOpenTransportError as refused:
    wait: float | None = refused.retry_after
    sent: LIBRARY.Request = refused.request
transport.breaker_for(request).no_such_attribute
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of mypy for the standard library, which the second run reuses."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_transport_fits_the_one_library_that_is_installed(
    library: str, tmp_path: Path, cache: Path
) -> None:
    """Mypy in strict mode finds the only error of such a project, and none in the transport."""
    venv.create(tmp_path / "venv", symlinks=True)
    installed, here = (
        Path(
            sysconfig.get_path("purelib", "venv", {"base": str(base), "installed_base": str(base)})
        )
        for base in (tmp_path / "venv", sys.prefix)
    )
    for name in (library, library.replace("x", "core", 1), *USED_BY_BOTH):
        if (here / name).exists():
            (installed / name).symlink_to(here / name)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("LIBRARY", library), encoding="utf-8")
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"),
            f"--python-executable={tmp_path / 'venv' / 'bin' / 'python'}",
            f"--cache-dir={cache}",
            str(program),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.stdout.count("error:") == 1, checked.stdout
    assert '"CircuitBreaker" has no attribute "no_such_attribute"' in checked.stdout
