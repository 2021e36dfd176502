"""The rehearsal's network, loaded by each Python that takes part, on the client's side and in the instances.

Who this process is: REHEARSAL_ADDRESS, an instance's private address, or nothing for the client, which
stands outside at 127.0.0.1. Connects to an instance are allowed by its security groups' rules or refused;
public addresses are translated to private ones; anything that is not loopback is refused.
"""

import ipaddress
import json
import os
import socket
import ssl  # noqa: F401  before the patches: it subclasses socket
import urllib.request
from pathlib import Path

ADDRESS = os.environ.get("REHEARSAL_ADDRESS") or os.environ.get("REHEARSAL_CLIENT", "127.0.0.1")
INSIDE = "REHEARSAL_ADDRESS" in os.environ
FOLDER = Path(os.environ["REHEARSAL_FOLDER"])
METADATA_ADDRESS = "169.254.169.254"
IP_BIND_ADDRESS_NO_PORT = 24

_bind, _connect, _connect_ex = socket.socket.bind, socket.socket.connect, socket.socket.connect_ex
_urlopen = urllib.request.urlopen


def bind(self, address):
    """Every address of an instance is its own."""
    if INSIDE and self.family == socket.AF_INET and address[0] in ("", "0.0.0.0"):
        address = (ADDRESS, *address[1:])
    return _bind(self, address)


def connect(self, address):
    if _is_probe(self, address):
        return _bind(self, (ADDRESS, 0))
    return _connect(self, _route(self, address))


def connect_ex(self, address):
    return _connect_ex(self, _route(self, address))


def _is_probe(sock, address) -> bool:
    """Dask learns its own address from a datagram socket that never sends."""
    return sock.family == socket.AF_INET and sock.type & socket.SOCK_DGRAM and not address[0].startswith("127.")


def _route(sock, address):
    """Where a connect really goes. Raises OSError where AWS would not let it through."""
    if sock.family != socket.AF_INET:
        if sock.family == socket.AF_INET6:
            raise OSError(101, "the rehearsal has no IPv6")
        return address
    host, port = address[0], address[1]
    network = json.loads((FOLDER / "network.json").read_text())
    if host == METADATA_ADDRESS and INSIDE:
        return _from_own_address(sock, ("127.0.0.1", network["metadata"]))
    if host in ("localhost", "127.0.0.1"):
        return address
    target = network["public"].get(host)
    if not target and INSIDE and host in network["rules"]:
        target = host
    if not target:
        raise OSError(113, f"the rehearsal has no route to {host}")
    if target != ADDRESS and not _allowed(network, target, port):
        with (FOLDER / "dropped.log").open("a") as log:
            print(json.dumps({"from": ADDRESS, "to": target, "port": port}), file=log)
        raise OSError(110, f"a security group drops connections from {ADDRESS} to {host}:{port}")
    return _from_own_address(sock, (target, port)) if INSIDE else (target, port)


def _allowed(network, target, port) -> bool:
    mine = network["groups"].get(ADDRESS, [])
    for rule in network["rules"].get(target, []):
        first, last = rule["ports"]
        near = rule["cidr"] and ipaddress.ip_address(ADDRESS) in ipaddress.ip_network(rule["cidr"])
        if first <= port <= last and (near or rule["group"] in mine):
            return True
    return False


def _from_own_address(sock, address):
    if sock.getsockname()[1] == 0:
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        _bind(sock, (ADDRESS, 0))
    return address


def urlopen(url, *args, **options):
    """The client asks the world for its address; the rehearsal answers."""
    if url == "https://checkip.amazonaws.com":
        port = json.loads((FOLDER / "network.json").read_text())["control"]
        url = f"http://127.0.0.1:{port}/checkip"
    return _urlopen(url, *args, **options)


socket.socket.bind, socket.socket.connect, socket.socket.connect_ex = bind, connect, connect_ex
urllib.request.urlopen = urlopen

if INSIDE:
    socket.has_ipv6 = False  # [::] is this whole machine's, and so that of other instances too
if INSIDE and "REHEARSAL_VCPUS" in os.environ:
    vcpus = int(os.environ["REHEARSAL_VCPUS"])
    os.cpu_count = lambda: vcpus
    os.sched_getaffinity = lambda pid: set(range(vcpus))

if older := os.environ.get("REHEARSAL_OTHER_VERSION"):  # an image with another version of a package
    import importlib.metadata

    _version = importlib.metadata.version
    importlib.metadata.version = lambda name: "0.0.1" if name == older else _version(name)
