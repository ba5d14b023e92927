"""The health check of the image uses the address that the service listens on."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from example_service import healthcheck
from tests.service_process import DEADLINE_SECONDS, Service, kill

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="the image runs on Linux"),
]


@pytest.fixture
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """A service with these variables, on a free port."""
    service = Service(tmp_path, **request.param)
    assert service.url
    yield service
    kill(service)


@pytest.mark.parametrize(
    "service",
    [{}, {"HOST": "0.0.0.0"}, {"HOST": "::1"}, {"HOST": "::"}, {"WORKERS": "2"}],  # noqa: S104
    indirect=True,
    ids=str,
)
def test_the_address_is_found(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever HOST and PORT are, the check finds the address."""
    port = int(service.url.rpartition(":")[2])
    served = [address for address in healthcheck.served_addresses() if address[1] == port]
    monkeypatch.setattr(healthcheck, "served_addresses", lambda: served)
    monkeypatch.setattr(healthcheck, "_TIMEOUT_SECONDS", DEADLINE_SECONDS)

    assert len(served) == 1
    assert healthcheck.main() == 0
    kill(service)
    assert healthcheck.main() == 1
