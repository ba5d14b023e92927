"""Classification of host addresses in all notations."""

import ipaddress
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, TypeAlias
from urllib.parse import unquote

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# Including the names that distributions put into /etc/hosts.
_OWN_NAMES: Final = re.compile(
    r"(.+\.)?localhost|localhost[46]?(\.localdomain[46]?)?|ip6-\w+|loopback|broadcasthost"
)
# The machine as seen from a container, the metadata servers of clouds, and public domains whose
# names resolve to this machine or to the address in the name.
_NAMES_NEARBY: Final = re.compile(
    r"(host|gateway|kubernetes)\.(docker|containers|lima|orb)\.internal|docker\.for\.mac\..+|"
    r"metadata(\.google\.internal)?|instance-data(\.ec2\.internal)?|"
    r"(.+\.)?(nip\.io|sslip\.io|xip\.io|traefik\.me|localtest\.me|lvh\.me|vcap\.me)"
)
_AWS_METADATA: Final = ipaddress.IPv6Address("fd00:ec2::254")
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
# IPv6 networks with embedded IPv4 addresses: IPv4-compatible, IPv4-translated and NAT64.
_EMBEDDING_IPV4: Final = tuple(
    map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/96"))
)
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


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, so that no network is used. See also `is_local`."""
    name = _plain(host)
    addresses = list(_addresses_of(name))
    return _OWN_NAMES.fullmatch(name) is not None or (
        bool(addresses) and all(each.is_loopback or each.is_unspecified for each in addresses)
    )


def resolves_to_local(host: str) -> bool:
    """Whether the resolver finds a local address for a name. Blocks until it responds."""
    try:
        found = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False
    return any(is_local(str(address[0])) for *_, address in found)


def is_local(host: str) -> bool:
    """Whether a host is this machine or on this link, and not a remote server.

    This includes names of this machine, and of the host of a container, and loopback, link-local,
    unspecified, multicast and broadcast addresses. All notations that resolvers accept are
    recognized: decimal, hexadecimal and octal numbers, fewer than four of them, IPv6 addresses with
    an embedded IPv4 address, a trailing dot, and percent-encoding.
    """
    name = _plain(host)
    if not name or _OWN_NAMES.fullmatch(name) or _NAMES_NEARBY.fullmatch(name):
        return True
    return any(map(_is_local_address, _addresses_of(name)))


def _plain(host: str) -> str:
    return unquote(host).strip("[]").rstrip(".").partition("%")[0].lower()


def _is_local_address(address: Address) -> bool:
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or address == _AWS_METADATA
        or (address.version == 4 and (address.is_reserved or int(address) < 2**24))  # noqa: PLR2004
    )


def _addresses_of(name: str) -> Iterator[Address]:
    """Each address that a resolver may read in a name."""
    # `0127.0.0.1` is octal for some resolvers and decimal for others.
    for text in {name, re.sub(r"\b0+(?=[0-9])", "", name)}:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            with suppress(OSError, ValueError):
                yield ipaddress.IPv4Address(socket.inet_aton(text))
        else:
            within = _ipv4_within(address) if address.version == 6 else None  # noqa: PLR2004
            yield within or address


def _ipv4_within(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _EMBEDDING_IPV4) and int(address) >= _FIRST_EMBEDDED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
