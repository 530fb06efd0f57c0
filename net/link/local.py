"""Peers of this host and user are reached over Unix sockets: by the address alone, without asking.

A peer that serves at an address also listens at a name that is made of that address and its user,
in the abstract namespace of Linux. Such a name belongs to the network namespace, as the address
does, and leaves no file. Any process may take a name first, so the other end has to belong to the
same user.
"""
from __future__ import annotations

import os
import socket
import sys
from typing import List, Optional

from ..errors import Address
from ..settings import is_loopback
from .base import Deadline, Endpoint, Listener
from .tcp import is_own_address
from .unix import PeerCredentials, UnixCarrier, peer_credentials

#: What a peer binds that serves at every address of its host, in IPv4 and in IPv6.
EVERY_ADDRESS, EVERY_ADDRESS_6 = "0.0.0.0", "::"

# What all such names begin with, and the same as sockets give it.
NAMES = "app-net/"
_NAMES = b"\0" + NAMES.encode()

#: Seconds until a peer whose queue stays full is reached by TCP. A process of another user may have
#: taken its name and accept nothing, and only an accepted client can tell whose process it is.
QUEUE_TIME = 0.2

# The file that gives a host's own name its address, and how many bytes of it are read.
HOSTS_FILE = "/etc/hosts"
MAX_HOSTS_FILE = 64 * 1024


class NotProved(Exception):
    """The other end of a connection within this host has not proved that it knows the secret, or
    the kernel does not show both ends the same two processes, as between containers. See
    proof.py."""


def endpoints_of(address: Address) -> List[Endpoint]:
    """Where a peer of this host and user that serves at an address, or at every address, may also
    listen; none where the system has no such names, or the address is another host's."""
    if sys.platform != "linux" or not is_own_address(address[0]):
        return []
    every = EVERY_ADDRESS_6 if ":" in address[0] else EVERY_ADDRESS
    return [_endpoint(address), _endpoint((every, address[1]))]


def listen(address: Address, backlog: int) -> Optional[Listener]:
    """Listen for peers of this host and user, besides listening at an address; None where that is
    impossible."""
    if sys.platform != "linux":
        return None
    try:
        return UnixCarrier().listen(_endpoint(address), backlog)
    except OSError:
        return None  # no such sockets here, or another process has the name


def connect(endpoints: List[Endpoint], deadline: Deadline) -> Optional[socket.socket]:
    """A connected, blocking socket; None if no process of the same user accepts at any of these."""
    for endpoint in endpoints:
        try:
            patience = Deadline(min(QUEUE_TIME, deadline.remaining()))
            sock = UnixCarrier().connect(endpoint, patience)
        except OSError:
            continue
        if _is_of_this_user(sock):
            return sock
    return None


def start(endpoints: List[Endpoint]) -> Optional[socket.socket]:
    """A connected, non-blocking socket, as :func:`connect` gives a blocking one. Never waits.

    :raises BlockingIOError: not now; try again a little later, for QUEUE_TIME.
    """
    for endpoint in endpoints:
        try:
            sock = UnixCarrier().start(endpoint)
        except BlockingIOError:
            raise
        except OSError:
            continue
        if _is_of_this_user(sock):
            return sock
    return None


def leads_to_process(sock: socket.socket) -> bool:
    """Whether it is a connection that :func:`connect` gave."""
    if sys.platform != "linux" or sock.family != socket.AF_UNIX:
        return False
    name = sock.getpeername()  # of one of a pair, whose other end anybody may serve, it is empty
    return type(name) is bytes and name.startswith(_NAMES)


def process_behind(sock: socket.socket) -> Optional[PeerCredentials]:
    """The process at the other end of a connection that :func:`connect` or a listener of
    :func:`listen` gave; None for any other connection, or one to another user's process.

    :raises OSError: the connection has broken.
    """
    if not sys.platform == "linux" or sock.family != socket.AF_UNIX:
        return None
    names = sock.getsockname(), sock.getpeername()
    if not any(type(name) is bytes and name.startswith(_NAMES) for name in names):
        return None  # one of a pair, whose other end any process may serve
    found = peer_credentials(sock)
    return found if found is not None and found.user == os.getuid() else None


def _is_of_this_user(sock: socket.socket) -> bool:
    """Whether the other end is a process of this user's; closed if not."""
    try:
        if process_behind(sock) is not None:
            return True
    except OSError:
        pass
    sock.close()
    return False


def named_loopback() -> List[str]:
    """Other loopback addresses of this host's name, such as Debian's 127.0.1.1. Old programs listen
    and look there. Asks no resolver, which could take seconds."""
    try:
        with open(HOSTS_FILE, encoding="utf-8", errors="replace") as file:
            lines = file.read(MAX_HOSTS_FILE).splitlines()
    except OSError:
        return []
    rows = [line.partition("#")[0].split() for line in lines]
    name = socket.gethostname().lower()
    return [address for address, *names in filter(None, rows)
            if is_loopback(address) and ":" not in address and address != "127.0.0.1"
            and name in map(str.lower, names)]


def _endpoint(address: Address) -> Endpoint:
    return Endpoint("unix", f"@{NAMES}{os.getuid()}/{address[0]}:{address[1]}", 0)
