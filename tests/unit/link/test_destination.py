"""Where a caller means to be, and the peer that it has reached."""
from __future__ import annotations

from typing import Any, Optional

import pytest

from each import each
from net.errors import AuthenticationError
from net.link.destination import check_destination, destination
from net.settings import settings

INSTANCE = "ab" * 16


class Ends:
    """A socket with a near and a far end."""

    def __init__(self, far: Any = None, near: Any = None) -> None:
        self._far, self._near = far, near

    def getpeername(self) -> Any:
        return self._far

    def getsockname(self) -> Any:
        return self._near


@each("far, to", [
    (("10.0.0.5", 3010), ("10.0.0.5", 3010)), (("fd00::5", 3010, 0, 0), ("fd00::5", 3010)),
    (("::ffff:10.0.0.5", 3010, 0, 0), ("10.0.0.5", 3010)),
    (("fe80::5%lo", 3010, 0, 1), ("fe80::5", 3010)), (("fe80::5", 3010, 0, 1), ("fe80::5", 3010)),
    (("127.0.0.1", 3010), None), (("::1", 3010, 0, 0), None), ("", None), (b"\0net", None),
], ids=repr)
def test_a_caller_says_the_numeric_far_end_of_its_connection(far: Any, to: Any):
    assert destination(Ends(far=far), ("render.example", 3010)) == to  # type: ignore[arg-type]


def test_through_an_engine_it_says_the_process_that_it_means():
    peer = INSTANCE + ".zenoh", 3010
    assert destination(Ends(far=""), peer) == peer  # type: ignore[arg-type]


def check(to: Any, near: Any) -> Optional[AuthenticationError]:
    try:
        check_destination(to, Ends(near=near), INSTANCE)  # type: ignore[arg-type]
        return None
    except AuthenticationError as problem:
        return problem


@each("to, near", [
    (None, ("10.0.0.5", 3010)), (("10.0.0.5", 3010), ("10.0.0.5", 3010)),
    (("10.0.0.5", 3010), ("::ffff:10.0.0.5", 3010, 0, 0)),
    (("fe80::5", 3010), ("fe80::5", 3010, 0, 1)), (("127.0.0.1", 4000), ("10.0.0.5", 3010)),
    (("::1", 4000), ("10.0.0.5", 3010)), ((INSTANCE + ".zenoh", 3010), ""), (None, ""),
], ids=repr)
def test_a_caller_that_means_this_peer_is_let_in(to: Any, near: Any):
    assert check(to, near) is None


@each("to, near", [
    (("10.0.0.6", 3010), ("10.0.0.5", 3010)), (("10.0.0.5", 3011), ("10.0.0.5", 3010)),
    (("fd00::6", 3010), ("fd00::5", 3010, 0, 0)), (("10.0.0.5", 3010), ""),
    (("cd" * 16 + ".zenoh", 3010), ""), ((INSTANCE + ".zenoh", 3010), ("10.0.0.5", 3010)),
    (("", 0), ("10.0.0.5", 3010)),
], ids=repr)
def test_a_caller_that_means_another_one_is_refused_and_told_what_to_do(to: Any, near: Any):
    problem = check(to, near)
    assert problem is not None and problem.ran == "no"
    assert "somebody redirects it" in problem.reason and "NET_ADVERTISE=" in problem.reason


def test_what_a_peer_advertises_is_its_own_as_well():
    near = "10.0.0.5", 3010
    try:
        settings.set("advertise", "192.0.2.7:4000")
        assert check(("192.0.2.7", 4000), near) is check(("10.0.0.5", 3010), near) is None
        assert check(("192.0.2.7", 3010), near) is not None
        settings.set("advertise", "fd00::7")  # at the same port
        assert check(("fd00::7", 3010), near) is None
        assert "[fd00::7]:4000" in check(("fd00::7", 4000), near).reason  # type: ignore[union-attr]
    finally:
        settings.reset()


def test_a_broken_connection_is_an_error_of_the_connection():
    class Broken(Ends):
        def getpeername(self) -> Any:
            raise OSError("not connected")

    with pytest.raises(OSError, match="not connected"):
        destination(Broken(), ("10.0.0.5", 3010))  # type: ignore[arg-type]
