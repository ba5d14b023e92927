"""The health check of the container image: `python -m example_service.healthcheck`.

It calls the liveness endpoint at the address on which the service actually listens, because that
may be set in the environment, in `.env`, or with `--host` and `--port`. The address is found in
`/proc`, so this needs Linux. It imports nothing else of the package, because it runs every few
seconds.
"""

import http.client
import ipaddress
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_TIMEOUT_SECONDS = 3.0
_PROC = Path("/proc")
_NAMES = (b"example_service", b"example-service")
"""The names of the service on a command line: the module's and the program's."""
_LISTEN = "0A"
_OK = 200


def main() -> int:
    """Return the exit status: 0 if the service is alive, 1 if not."""
    return 0 if any(_is_alive(*address) for address in served_addresses()) else 1


def served_addresses() -> Iterator[tuple[str, int]]:
    """The addresses and ports on which the service listens in this container."""
    sockets = {inode for process in _services() for inode in _sockets_of(process)}
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if state == _LISTEN and rest[5] in sockets:
                    yield _address(local)


def _services() -> Iterator[Path]:
    for process in _PROC.glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"serve" in words and any(name in word for name in _NAMES for word in words):
                yield process


def _sockets_of(process: Path) -> Iterator[str]:
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                if found := re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink())):
                    yield found[1]


def _address(local: str) -> tuple[str, int]:
    """Parse an address and port of `/proc/net/tcp`, which are in the machine's byte order."""
    digits, _, port = local.partition(":")
    words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    if address.is_unspecified:
        return ("127.0.0.1" if address.version == 4 else "::1"), int(port, 16)  # noqa: PLR2004
    return str(address), int(port, 16)


def _is_alive(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == _OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
