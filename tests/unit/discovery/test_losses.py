"""How the loss of datagrams is measured; all on loopback."""
from __future__ import annotations

import socket
import threading
from typing import Any, Callable, Iterator, List, Optional, Tuple

import pytest

from net.discovery.lan import losses
from net.discovery.lan.datagrams import ANSWER, ASK, Message, Seal, decode, encode
from net.discovery.lan.losses import QUESTIONS, Losses, measure

Start = Callable[..., Tuple[str, int]]


@pytest.fixture
def peer(port_range: range, monkeypatch: Any) -> Iterator[Start]:
    """Start a peer that does not answer some of the questions, by their number."""
    # What has not been answered by then is lost here.
    monkeypatch.setattr(losses, "WAIT", 0.2)
    started: List[Tuple[socket.socket, threading.Thread]] = []

    def start(deaf: Callable[[int], bool], seal: Optional[Seal] = None) -> Tuple[str, int]:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", port_range[len(started)]))

        def run() -> None:
            number = 0
            while True:
                data, source = sock.recvfrom(2000)
                if not data:
                    return
                message = decode(data, seal)
                assert message is not None and message.kind == ASK and message.port == source[1]
                if not deaf(number):
                    sock.sendto(encode(Message(ANSWER, 0, 3010, message.nonce), seal), source)
                number += 1

        thread = threading.Thread(target=run)
        thread.start()
        started.append((sock, thread))
        return "127.0.0.1", port_range[len(started) - 1]

    yield start
    for sock, thread in started:
        sock.sendto(b"", sock.getsockname())
        thread.join()
        sock.close()


def test_questions_without_an_answer_are_counted(peer: Start) -> None:
    whole, half = peer(lambda number: False), peer(lambda number: number % 2 == 0)
    assert measure([whole], 0.0, None) == Losses(QUESTIONS, 0)
    assert measure([whole, half], 0.0, None) == Losses(2 * QUESTIONS, QUESTIONS // 2)


def test_nobody_is_asked_where_there_is_nobody() -> None:
    assert measure([], 0.0, None) == Losses(0, 0)


def test_under_a_secret_questions_are_sealed(peer: Start) -> None:
    pytest.importorskip("cryptography")
    place = peer(lambda number: number < 3, Seal(b"k" * 32))
    assert measure([place], 0.0, Seal(b"k" * 32)) == Losses(QUESTIONS, 3)
