"""How many datagrams get lost between this host and peers: some questions to each of them, for the
doctor. A search asks too few to tell a network that loses one frame in twenty from a good one.
"""
from __future__ import annotations

import os
import socket
from time import monotonic, sleep
from typing import Dict, Iterable, List, NamedTuple, Optional, Set

from ...errors import Address
from ...link.addresses import socket_address
from .datagrams import (ANSWER, ASK, ASK_BYTES, Message, NONCE_BYTES, Seal, decode, encode,
                        encode_question)
from .sockets import opened, received, send

# Questions to each peer, which answers sixty of one host at once, and seconds between two of them.
QUESTIONS, PAUSE = 16, 0.02
# Seconds to wait for the last answers, beside some round trips: peers may be busy.
WAIT, ROUND_TRIPS = 1.0, 4


class Losses(NamedTuple):
    """How many questions were asked, and how many of them came to nothing."""

    asked: int
    lost: int


def measure(addresses: Iterable[Address], round_trip: float, seal: Optional[Seal]) -> Losses:
    """Ask peers that answer datagrams, each several times.

    :param round_trip: seconds that an answer takes.
    """
    by_family: Dict[int, List[Address]] = {}
    for address in addresses:
        by_family.setdefault(socket_address(address)[0], []).append(address)
    waiting: Set[bytes] = set()
    socks: List[socket.socket] = []
    asked = 0
    try:
        for _ in range(QUESTIONS if by_family else 0):
            for family, places in by_family.items():
                # From a socket of its own each time: a busy peer answers what has come from one
                # address meanwhile only once.
                asked += _ask(family, places, seal, waiting, socks)
            _take(socks, waiting, seal)
        until = monotonic() + WAIT + ROUND_TRIPS * round_trip
        while waiting and monotonic() < until:
            _take(socks, waiting, seal)
    finally:
        for sock in socks:
            sock.close()
    return Losses(asked, len(waiting))


def _ask(family: int, places: Iterable[Address], seal: Optional[Seal],
         waiting: Set[bytes], socks: List[socket.socket]) -> int:
    """Ask each once; return to how many the question could be sent."""
    try:
        with opened(family) as sock:
            sock.bind(("", 0))
    except OSError:
        return 0  # too many open files
    socks.append(sock)
    # A question that names the port of its socket does not count as a search; peers count how many
    # search.
    port, number = sock.getsockname()[1], 0
    for place in places:
        nonce = os.urandom(NONCE_BYTES)
        question = Message(ASK, 0, port, nonce,
                           body=encode_question(size=ASK_BYTES, sealed=seal is not None))
        try:
            send(sock, encode(question, seal), place)
        except OSError:
            continue
        waiting.add(nonce)
        number += 1
    return number


def _take(socks: Iterable[socket.socket], waiting: Set[bytes], seal: Optional[Seal]) -> None:
    """Wait for a moment, then take the answers that have come."""
    sleep(PAUSE)
    for sock in socks:
        for datagram, _ in received(sock):
            message = decode(datagram, seal)
            if message is not None and message.kind == ANSWER:
                waiting.discard(message.nonce)
