"""Runs the sandbox as a separate process while the service is served."""

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final, cast

from example_service.core.exceptions import StartError
from example_service.core.settings import Settings
from example_service.domain import Hints

_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 5.0


@contextmanager
def sandbox_if_needed(settings: Settings) -> Iterator[Hints]:
    """Run the sandbox during the block, unless the settings have another payment provider.

    The addresses of the sandbox are set as environment variables for the application.

    Yields:
        A function that returns hints on the use of the sandbox, none if there is no sandbox.

    Raises:
        StartError: If the sandbox does not start.
    """
    if settings.payment_provider.base_url is not None:
        yield _hints if settings.sandbox.control_url is not None else lambda _: ()
        return
    with _sandbox_process(settings.sandbox.seed) as sandbox:
        addresses = _addresses_of(sandbox)
        os.environ["PAYMENT_PROVIDER__BASE_URL"] = addresses["provider"]
        os.environ["SANDBOX__CONTROL_URL"] = addresses["control"]
        yield _hints


@contextmanager
def _sandbox_process(seed: int | None) -> Iterator[subprocess.Popen[bytes]]:
    options = [] if seed is None else ["--seed", str(seed)]
    command = [sys.executable, "-m", "example_service.sandbox", *options]
    # It ends when its standard input is closed: at the end of this block or of this process.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sandbox:  # noqa: S603
        try:
            yield sandbox
        finally:
            if sandbox.stdin is not None:
                sandbox.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                sandbox.wait(_END_SECONDS)
            sandbox.kill()


def _addresses_of(sandbox: subprocess.Popen[bytes]) -> dict[str, str]:
    output = cast("IO[bytes]", sandbox.stdout)
    readable, _, _ = select.select([output], [], [], _START_SECONDS)
    line = output.readline() if readable else b""
    try:
        addresses: dict[str, str] = json.loads(line)
    except ValueError:
        raise StartError(
            "The sandbox, which stands in for the payment provider, did not start. "
            "Its own message is above; or use a provider of your own: PAYMENT_PROVIDER__BASE_URL."
        ) from None
    return addresses


def _hints(url: str) -> list[str]:
    return [
        f"  Try it            curl {url}/api/v1/exchange-rates/EUR",
        "",
        "The payment provider is a sandbox. Make it fail, then let it recover:",
        "",
        *(f"  {_switch(url, mode)}" for mode in ("failing", "healthy")),
    ]


def _switch(url: str, mode: str) -> str:
    body = json.dumps({"mode": mode})
    return f"curl -X PUT {url}/sandbox/mode -H 'Content-Type: application/json' -d '{body}'"
