"""A lock under which no fork happens."""
from __future__ import annotations

import os
import threading

#: Held while TLS is loaded and credentials are made, a tenth of a second, and for each step of a
# handshake, a millisecond. A fork in between would leave the child waiting for ever for the locks
# of Python's import system and of OpenSSL.
fork_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=fork_lock.acquire, after_in_parent=fork_lock.release,
                        after_in_child=fork_lock.release)
