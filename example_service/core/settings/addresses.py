"""Classification of host addresses in all notations."""

import ipaddress
import re
import socket
from typing import Final, TypeAlias
from urllib.parse import unquote

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_OWN_NAMES: Final = re.compile(
    r"(.+\.)?localhost|localhost\.localdomain|ip6-(localhost|loopback)|host\.docker\.internal"
)
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
# IPv6 networks with embedded IPv4 addresses: IPv4-compatible and NAT64.
_EMBEDDING_IPV4: Final = (ipaddress.IPv6Network("::/96"), ipaddress.IPv6Network("64:ff9b::/96"))
_FIRST_EMBEDDED: Final = 2  # `::` and `::1` do not contain an IPv4 address.


def ipv4_of_mapped(address: Address) -> Address:
    """Convert an IPv4-mapped address (`::ffff:10.1.2.3`) to IPv4; return others unchanged."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def ipv4_of_mapped_network(network: Network) -> Network:
    """The same for a network: `::ffff:10.0.0.0/104` is `10.0.0.0/8`."""
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        address = ipv4_of_mapped(network.network_address)
        return ipaddress.ip_network((int(address), network.prefixlen - _MAPPED.prefixlen))
    return network


def is_local(host: str) -> bool:
    """Whether a host is this machine or on this link, and not a remote server.

    This includes names of this machine, and loopback, link-local, unspecified, multicast and
    broadcast addresses. All notations that resolvers accept are recognized: decimal, hexadecimal
    and octal numbers, fewer than four of them, IPv6 addresses with an embedded IPv4 address, a
    trailing dot, and percent-encoding.
    """
    name = unquote(host).strip("[]").rstrip(".").partition("%")[0].lower()
    if not name or _OWN_NAMES.fullmatch(name):
        return True
    address = _address_of(name)
    return address is not None and (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or (address.version == 4 and (address.is_reserved or int(address) < 2**24))  # noqa: PLR2004
    )


def _address_of(name: str) -> Address | None:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(name))
        except (OSError, UnicodeError):
            return None
    if isinstance(address, ipaddress.IPv6Address):
        return _ipv4_within(address) or address
    return address


def _ipv4_within(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _EMBEDDING_IPV4) and int(address) >= _FIRST_EMBEDDED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
