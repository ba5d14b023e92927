"""How the sandbox's process starts and stops."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

import httpx
import pytest

from tests.sandbox.integration.sandboxes import (
    COMMAND,
    EURO,
    PATIENCE_SECONDS,
    TEN_EUROS,
    WITHOUT_ANSWERS,
    addresses_of,
    sandbox_process,
)

pytestmark = pytest.mark.integration


class TestProcess:
    """Its start and its stop."""

    @pytest.mark.parametrize("change", WITHOUT_ANSWERS)
    def test_it_ends_with_its_standard_input(self, change: dict[str, Any]) -> None:
        """When the parent is gone, the sandbox exits quietly, even with calls in flight."""
        with sandbox_process() as process, held_call(addresses_of(process), change):
            cast("IO[str]", process.stdin).close()
            assert process.wait(PATIENCE_SECONDS) == 0
            assert cast("IO[str]", process.stderr).read() == ""

    @pytest.mark.parametrize("change", WITHOUT_ANSWERS)
    def test_it_ends_on_sigterm(self, change: dict[str, Any]) -> None:
        """It exits promptly and cleanly, even if standard input stays open."""
        with (
            sandbox_process(stdin=subprocess.DEVNULL) as process,
            held_call(addresses_of(process), change),
        ):
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) == 0
            assert cast("IO[str]", process.stderr).read() == ""

    def test_ctrl_c_is_left_to_the_parent(self) -> None:
        """The parent gets the signal, too, and stops the sandbox when it is no longer needed."""
        with sandbox_process() as process:
            addresses = addresses_of(process)
            process.send_signal(signal.SIGINT)
            assert get(f"{addresses['provider']}/v1/rates/EUR").json() == EURO

    def test_ctrl_c_ends_it_on_a_terminal(self) -> None:
        """Started by hand, it behaves like any other command."""
        with sandbox_process(stdin=subprocess.DEVNULL) as process:
            addresses_of(process)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_SECONDS) == 0

    def test_the_ports_and_the_seed_can_be_chosen(self) -> None:
        """The same ports can be used again at once."""
        with sandbox_process() as process:
            ports = [str(httpx.URL(url).port) for url in addresses_of(process).values()]
        options = ("--provider-port", ports[0], "--control-port", ports[1], "--seed", "5")
        with sandbox_process(*options) as process:
            addresses = addresses_of(process)
            assert [str(httpx.URL(url).port) for url in addresses.values()] == ports
            report = turn(addresses, {"mode": "flaky"})
            assert report.json()["seed"] == 5

    @pytest.mark.parametrize(
        ("option", "value", "hint"),
        [
            ("--host", "0.0.0.0", "loopback"),  # noqa: S104 - refused
            ("--host", "localhost", "127.0.0.1"),
            ("--provider-port", "65536", "0 to 65535"),
            ("--control-port", "-1", "0 to 65535"),
            ("--seed", "many", "integer"),
        ],
    )
    def test_a_bad_option_is_refused_by_name(self, option: str, value: str, hint: str) -> None:
        """The exit status is 2, and the message says what the option accepts."""
        ended = subprocess.run(
            [*COMMAND, f"{option}={value}"], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 2
        assert option in ended.stderr
        assert hint in ended.stderr

    def test_a_taken_port_is_reported_in_one_line(self) -> None:
        """The exit status is 1, and there is no traceback."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            ended = subprocess.run(
                [*COMMAND, "--provider-port", port], capture_output=True, text=True, check=False
            )
        assert ended.returncode == 1
        assert ended.stderr.count("\n") == 1
        assert "127.0.0.1" in ended.stderr


def get(url: str) -> httpx.Response:
    """Request a resource of the sandbox."""
    return httpx.get(url, timeout=PATIENCE_SECONDS)


def turn(addresses: dict[str, str], change: dict[str, Any]) -> httpx.Response:
    """Set the mode, and return the sandbox's report."""
    url = f"{addresses['control']}/sandbox/mode"
    return httpx.put(url, json=change, timeout=PATIENCE_SECONDS).raise_for_status()


@contextmanager
def held_call(addresses: dict[str, str], change: dict[str, Any]) -> Iterator[None]:
    """Hold a call in the sandbox that it does not answer, on an open connection."""
    turn(addresses, change)
    charges = f"{addresses['control']}/sandbox/charges"
    provider = httpx.URL(addresses["provider"])
    body = json.dumps(TEN_EUROS)
    head = f"POST /v1/charges HTTP/1.1\r\nIdempotency-Key: k\r\nContent-Length: {len(body)}"
    with socket.create_connection((provider.host, provider.port)) as connection:
        connection.sendall(f"{head}\r\n\r\n{body}".encode())
        deadline = time.monotonic() + PATIENCE_SECONDS
        while get(charges).json()["total_charges"] == 0:
            assert time.monotonic() < deadline
        yield
