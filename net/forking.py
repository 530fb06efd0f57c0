"""What is done when this process forks, by the one hook that the package has."""
from __future__ import annotations

import os
import threading
from typing import Callable, List

#: Held while TLS is loaded and credentials are made, a tenth of a second, and for each step of a
#: handshake, a millisecond. A fork in between would leave the child waiting for ever for the locks
#: of Python's import system and of OpenSSL.
fork_lock = threading.Lock()
_in_child: List[Callable[[], object]] = []


def in_child(forget: Callable[[], object]) -> None:
    """Have something done in every child, where no thread but the one that forked goes on, after
    what was named before it."""
    _in_child.append(forget)


def _begin_in_child() -> None:
    fork_lock.release()
    for forget in _in_child:
        forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=fork_lock.acquire, after_in_parent=fork_lock.release,
                        after_in_child=_begin_in_child)
