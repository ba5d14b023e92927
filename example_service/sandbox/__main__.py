"""Runs the sandbox: `python -m example_service.sandbox`."""

import argparse
import asyncio
import ipaddress
import json
import os
import signal
import stat
import sys
from collections.abc import Sequence

from example_service.sandbox.charges import Ledger
from example_service.sandbox.control import create_control
from example_service.sandbox.listener import Listener
from example_service.sandbox.modes import MAX_SEED
from example_service.sandbox.provider import create_provider
from example_service.sandbox.switch import Switch

_MAX_PORT = 65_535


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. If standard input is a pipe, serve until it is closed instead.

    A line of JSON on standard output, `{"provider": url, "control": url}`, shows that both
    addresses accept connections.

    Returns:
        The exit status: 0 after a normal end, 1 if an address is not available.
    """
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(_serve(options.host, options.provider_port, options.control_port, options.seed))
    except OSError as error:
        sys.stderr.write(f"sandbox: cannot serve on {options.host}: {error.strerror}\n")
        return 1
    return 0


async def _serve(host: str, provider_port: int, control_port: int, seed: int | None) -> None:
    ended = _end_of_service()
    ledger, switch = Ledger(), Switch(seed)
    provider = Listener(create_provider(ledger, switch), host, provider_port)
    control = Listener(create_control(ledger, switch, provider), host, control_port)
    await provider.open()
    await control.open()
    sys.stdout.write(json.dumps({"provider": provider.url, "control": control.url}) + "\n")
    sys.stdout.flush()
    await ended.wait()
    await control.close()
    switch.late_charges.close()
    await provider.close()


def _end_of_service() -> asyncio.Event:
    """Return an event that is set when this process must end."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        # The parent ends the sandbox by closing the pipe. Terminals and systemd signal the whole
        # process group, but the parent may still need the sandbox for calls in flight.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, lambda: None)
        loop.add_reader(sys.stdin.fileno(), _read_until_end, sys.stdin.fileno(), ended)
    else:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
    return ended


def _read_until_end(stdin: int, ended: asyncio.Event) -> None:
    if not os.read(stdin, 4096):
        asyncio.get_running_loop().remove_reader(stdin)
        ended.set()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m example_service.sandbox",
        description="A payment provider that misbehaves on request. For development only.",
    )
    parser.add_argument("--host", type=_loopback, default="127.0.0.1", help="a loopback address")
    parser.add_argument("--provider-port", type=_port, default=0, help="0 chooses a free one")
    parser.add_argument("--control-port", type=_port, default=0, help="0 chooses a free one")
    parser.add_argument(
        "--seed", type=_seed, help="makes garbled and flaky repeat; without it they vary"
    )
    return parser


def _loopback(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be an address such as 127.0.0.1 or ::1") from None
    if not address.is_loopback:
        raise argparse.ArgumentTypeError("must be a loopback address, 127.0.0.1 or ::1")
    return str(address)


def _port(text: str) -> int:
    return _integer(text, _MAX_PORT)


def _seed(text: str) -> int:
    return _integer(text, MAX_SEED)


def _integer(text: str, largest: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= largest):
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to {largest}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
