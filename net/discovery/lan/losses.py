"""How many datagrams get lost between this host and peers: some questions to each of them, for the
doctor. A search asks too few to tell a network that loses one frame in twenty from a good one.
"""
from __future__ import annotations

import os
import selectors
from time import monotonic
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
    asked = 0
    with selectors.DefaultSelector() as selector:
        try:
            for _ in range(QUESTIONS):
                for family, places in by_family.items():
                    # From a socket of its own each time: a busy peer answers what has come from one
                    # address meanwhile only once.
                    asked += _ask(family, places, seal, waiting, selector)
                _take(selector, waiting, seal, PAUSE)
            _take(selector, waiting, seal, WAIT + ROUND_TRIPS * round_trip)
        finally:
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
    return Losses(asked, len(waiting))


def _ask(family: int, places: Iterable[Address], seal: Optional[Seal],
         waiting: Set[bytes], selector: selectors.BaseSelector) -> int:
    """Ask each once; how many it could be sent to."""
    try:
        with opened(family) as sock:
            sock.bind(("", 0))
            selector.register(sock, selectors.EVENT_READ)
    except OSError:
        return 0  # too many open files
    # With the number of its socket the question is that of no search; peers count how many search.
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


def _take(selector: selectors.BaseSelector, waiting: Set[bytes], seal: Optional[Seal],
          seconds: float) -> None:
    """Take answers for so long, or until all have come."""
    until = monotonic() + seconds
    while waiting and monotonic() < until:
        for key, _ in selector.select(max(0.0, until - monotonic())):
            for datagram, _ in received(key.fileobj):  # type: ignore[arg-type]
                message = decode(datagram, seal)
                if message is not None and message.kind == ANSWER:
                    waiting.discard(message.nonce)
