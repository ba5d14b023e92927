"""The health check of the image: `python -m example_service.healthcheck`.

It asks the service for its liveness at the address on which that really listens, wherever the
address was set: the environment, `.env`, or `--host` and `--port`. Linux alone says which one that
is. Nothing else of the package is imported, because this runs every few seconds.
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
"""How the service is called on a command line: as a module, and as a program."""
_LISTEN = "0A"
_OK = 200


def main() -> int:
    """Return the exit status: 0 if the service answers that it is alive, 1 if not."""
    return 0 if any(_is_alive(*address) for address in served_addresses()) else 1


def served_addresses() -> Iterator[tuple[str, int]]:
    """The addresses and ports on which a service of this container listens."""
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
    """Read what the kernel writes: an address in words of the machine's byte order, and a port."""
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
