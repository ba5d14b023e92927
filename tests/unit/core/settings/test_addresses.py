"""How hosts are classified as local or remote."""

import ipaddress

import pytest

from example_service.core.settings.addresses import (
    ipv4_of_mapped,
    ipv4_of_mapped_network,
    is_local,
    is_loopback,
    resolves_to_local,
)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "shop.localhost",
        "localhost.localdomain",
        "localhost6",
        "localhost4.localdomain4",
        "ip6-localhost",
        "ip6-allnodes",
        "broadcasthost",
        "127.0.0.1",
        "127.0.0.1.",
        "127.255.255.254",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "0127.0.0.1",
        "127.000.000.001",
        "017700000001",
        "%31%32%37.0.0.1",
        "0",
        "0.0.0.0",  # noqa: S104
        "0x0",
        "0.1.2.3",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "0:0:0:0:0:0:0:1",
        "[::1]",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::ffff:169.254.1.1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b:1::127.0.0.1",
        "2002:7f00:1::",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "metadata.google.internal",
        "host.containers.internal",
        "127.0.0.1.nip.io",
        "pay.lvh.me",
        "ff02::1",
        "",
    ],
)
def test_this_machine_and_this_link_are_local(host: str) -> None:
    """Local addresses are recognized in every spelling that a resolver accepts."""
    assert is_local(host)


@pytest.mark.parametrize(
    "host",
    [
        "api.payment-provider.com",
        "localhost.example.com",
        "notlocalhost",
        "10.0.0.1",
        "192.0.2.1",
        "8.8.8.8",
        "134744072",
        "2001:db8::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::",
        "1.2.3.4.5",
        "127.0.0.1\0.example.com",
        "0x7f.example.com",
    ],
)
def test_servers_elsewhere_are_not_local(host: str) -> None:
    """Private networks are not local: a provider may be reached through a tunnel."""
    assert not is_local(host)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("db.localhost.", True),
        ("127.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("169.254.1.1", False),
        ("host.docker.internal", False),
        ("127.0.0.1.nip.io", False),
        ("fe80::1", False),
        ("224.0.0.1", False),
        ("10.0.0.1", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, *, expected: bool) -> None:
    """A login over any other address crosses a network."""
    assert is_loopback(host) is expected


def test_a_name_is_resolved_to_find_a_local_address() -> None:
    """A name that cannot be resolved is not local."""
    assert resolves_to_local("localhost")
    assert not resolves_to_local("192.0.2.1")
    assert not resolves_to_local("a" * 64 + ".example")


@pytest.mark.parametrize(
    ("address", "meant"),
    [("::ffff:10.1.2.3", "10.1.2.3"), ("10.1.2.3", "10.1.2.3"), ("2001:db8::1", "2001:db8::1")],
)
def test_a_mapped_address_becomes_the_ipv4_address_it_stands_for(address: str, meant: str) -> None:
    """A dual-stack socket reports IPv4 clients as mapped IPv6 addresses."""
    assert str(ipv4_of_mapped(ipaddress.ip_address(address))) == meant


@pytest.mark.parametrize(
    ("network", "meant"),
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:10.1.2.3/128", "10.1.2.3/32"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::/0", "::/0"),
    ],
)
def test_a_mapped_network_becomes_the_ipv4_network_it_stands_for(network: str, meant: str) -> None:
    """A mapped network matches the IPv4 clients that it was written for."""
    assert str(ipv4_of_mapped_network(ipaddress.ip_network(network))) == meant
