"""Where a machine is reached by others, and which of its addresses leads to them."""

from __future__ import annotations

import ipaddress
import os
import socket
from contextlib import suppress

import psutil

from research.errors import UsageError

NOWHERE = "192.0.2.1"  # reserved for documentation: the way to it is the way out


def host_and_port(rendezvous: str) -> tuple[str, int]:
    """The two parts of ``host:port``; an IPv6 address stands in brackets."""
    host, _, port = rendezvous.rpartition(":")
    return host.strip("[]"), int(port)


def reached_at(rendezvous: str) -> tuple[bool, str]:
    """Whether ``rendezvous`` names this machine, and the address at which the other nodes reach this machine.

    Raises:
        UsageError: it is not known here, there is no way to it, or it hides which address is meant.
    """
    host, port = host_and_port(rendezvous)
    try:
        found = [info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except OSError as error:
        raise UsageError(f"rendezvous={rendezvous}: {host} is not known on this machine ({error.strerror})") from None
    mine = {each.address for addresses in psutil.net_if_addrs().values() for each in addresses}
    here = any(each in mine or is_loopback(each) for each in found)
    if host == "localhost" or is_loopback(host):  # all nodes are this machine
        return here, found[0]
    far = next((each for each in found if not is_loopback(each)), NOWHERE)  # a machine's own name may map to loopback
    if address := way_out(far):
        return here, address
    if far != NOWHERE:
        raise UsageError(f"rendezvous={rendezvous}: there is no way from this machine to {host} ({far})")
    outward = [each for each in mine if is_outward(each)]
    if len(outward) != 1:
        told = f"has the addresses {', '.join(sorted(outward))}" if outward else "has no other address"
        raise UsageError(f"rendezvous={rendezvous}: {host} is loopback here, and this machine {told}; give an address")
    return here, outward[0]


def way_out(address: str) -> str:
    """This machine's address on the way to ``address``; nothing is sent. Empty where there is no way."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return probe.getsockname()[0]
    return ""


def is_loopback(address: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return False


def is_outward(address: str) -> bool:
    """Whether other machines may reach ``address`` (IPv4)."""
    with suppress(ValueError):
        known = ipaddress.IPv4Address(address)
        return not known.is_loopback and not known.is_link_local
    return False


def interface_of(address: str) -> dict[str, str]:
    """Gloo takes the interface that the machine's name leads to, which may be loopback: the environment names another.

    Unless the user has named one.
    """
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address or is_loopback(each.address) and is_loopback(address) for each in addresses):
            return {"GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", name)}
    return {}
