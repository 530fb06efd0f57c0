"""Interfaces and neighbours as Linux reports them, without a library or a command: that is ten
times as quick as loading one."""
from __future__ import annotations

import os
import socket
import struct
from typing import Iterator, List, NamedTuple, Tuple

from .addresses import handle, is_link_local, zone_name
from .base import ClosedOnError

_HEADER = struct.Struct("=IHHII")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_NEW_ADDRESS, _GET_ADDRESS, _NEW_NEIGHBOUR, _GET_NEIGHBOUR, _ERROR, _DONE = 20, 22, 28, 30, 2, 3
_DUMP, _REQUEST = 0x300, 1
# To ask for the flags of an interface.
_FLAGS, _GET_FLAGS, _RUNNING = struct.Struct("=16sH22x"), 0x8913, 0x40
_ADDRESS_OF, _LOCAL, _LABEL = 1, 2, 3
_TARGET, _HARDWARE = 1, 2
# Flags of an address of IPv6: it changes for privacy, may be used before it was checked, is
# another host's, is old, or is not checked yet, so that another host may have it.
_TEMPORARY, _OPTIMISTIC, _FAILED, _DEPRECATED, _TENTATIVE = 0x01, 0x04, 0x08, 0x20, 0x40
# States of a neighbour whose hardware address is known: reachable, stale, delay, probe, permanent.
_LIVE = 0x02 | 0x04 | 0x08 | 0x10 | 0x80

#: Groups for a socket that is told of changes: of links, and of addresses and routes of both kinds.
CHANGES = 0x1 | 0x10 | 0x40 | 0x100 | 0x400

# Bytes of one answer; the kernel sends pages.
MAX_PIECE = 64 * 1024


class Told(NamedTuple):
    """An address of this host, with the fields of :class:`~net.link.interfaces.Interface`."""

    name: str
    address: str
    prefix: int
    number: int
    passing: bool


def addresses() -> List[Told]:
    """Each address of this host that can be used, a link-local one of IPv6 with its zone.

    :raises OSError: the kernel does not say.
    """
    return [one for text in _dump(_GET_ADDRESS, _ADDRESS.pack(0, 0, 0, 0, 0), _NEW_ADDRESS)
            for one in _parsed(text)]


def neighbours() -> List[Tuple[str, str, str]]:
    """Interface, address and hardware address of each neighbour in IPv6 that this host has spoken
    to, a link-local address with its zone.

    :raises OSError: the kernel does not say.
    """
    asked = _NEIGHBOUR.pack(socket.AF_INET6, 0, 0, 0, 0)
    return [one for text in _dump(_GET_NEIGHBOUR, asked, _NEW_NEIGHBOUR)
            for one in _parsed_neighbour(text)]


def _dump(request: int, asked: bytes, wanted: int) -> Iterator[bytes]:
    """All messages that the kernel has of a kind."""
    with _socket() as sock:
        sock.settimeout(1.0)  # it answers at once, or never
        sock.send(_HEADER.pack(_HEADER.size + len(asked), request, _REQUEST | _DUMP, 1, 0) + asked)
        while True:
            piece = sock.recv(MAX_PIECE)
            at = 0
            while at + _HEADER.size <= len(piece):
                size, kind, _, _, _ = _HEADER.unpack_from(piece, at)
                if kind == _DONE:
                    return
                if kind == _ERROR or size < _HEADER.size:
                    raise OSError("netlink refuses to tell")
                if kind == wanted:
                    yield piece[at + _HEADER.size:at + size]
                at += -(-size // 4) * 4
            if not piece:
                raise OSError("netlink ended")


def _attributes(text: bytes, at: int) -> Iterator[Tuple[int, bytes]]:
    while at + _ATTRIBUTE.size <= len(text):
        size, kind = _ATTRIBUTE.unpack_from(text, at)
        if size < _ATTRIBUTE.size:
            break
        yield kind, text[at + _ATTRIBUTE.size:at + size]
        at += -(-size // 4) * 4


def _parsed(text: bytes) -> List[Told]:
    family, prefix, flags, _, index = _ADDRESS.unpack_from(text)
    found = dict(_attributes(text, _ADDRESS.size))
    if family == socket.AF_INET and _LOCAL in found:
        name = os.fsdecode(found.get(_LABEL, b"").rstrip(b"\0"))
        return [Told(name or socket.if_indextoname(index), socket.inet_ntoa(found[_LOCAL]), prefix,
                     0, False)]
    packed = found.get(_LOCAL, found.get(_ADDRESS_OF, b""))
    if family != socket.AF_INET6 or len(packed) != 16 or flags & _FAILED \
            or flags & _TENTATIVE and not flags & _OPTIMISTIC:
        return []
    return [Told(zone_name(index), _six(packed, index), prefix, index,
                 bool(flags & (_TEMPORARY | _DEPRECATED)))]


def _parsed_neighbour(text: bytes) -> List[Tuple[str, str, str]]:
    family, index, state, _, _ = _NEIGHBOUR.unpack_from(text)
    found = dict(_attributes(text, _NEIGHBOUR.size))
    packed = found.get(_TARGET, b"")
    if family != socket.AF_INET6 or len(packed) != 16 or not state & _LIVE:
        return []
    return [(zone_name(index), _six(packed, index), found.get(_HARDWARE, b"").hex(":"))]


def _six(packed: bytes, index: int) -> str:
    host = socket.inet_ntop(socket.AF_INET6, packed)
    return f"{host}%{zone_name(index)}" if is_link_local(host) else host


def is_up(name: str) -> bool:
    """Whether an interface is up and plugged in; True where the kernel does not say."""
    try:
        found = control(_GET_FLAGS, _FLAGS.pack(os.fsencode(name), 0))
    except (ImportError, OSError, struct.error):
        return True
    return bool(_FLAGS.unpack(found)[1] & _RUNNING)


def control(request: int, data: bytes) -> bytes:
    """Have the kernel do or say something about its networks, by a request of ``ioctl``.

    :raises OSError: it refuses.
    """
    import fcntl  # POSIX only

    with handle(socket.AF_INET) as sock:
        return fcntl.ioctl(sock, request, data)


def changes() -> socket.socket:
    """A socket that is readable when interfaces, addresses or routes have changed.

    :raises OSError: the kernel does not say.
    """
    with ClosedOnError(_socket()) as sock:
        sock.bind((0, CHANGES))
        sock.setblocking(False)
    return sock


def _socket() -> socket.socket:
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        raise OSError("no netlink on this system")
    return socket.socket(family, socket.SOCK_RAW, 0)
