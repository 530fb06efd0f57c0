"""How much one message may hold."""
from __future__ import annotations

from typing import NamedTuple

MIB = 2 ** 20


class Limits(NamedTuple):
    """What is refused on the way out and on the way in. The settings have one of these.

    :ivar text: bytes of JSON. 16 MiB parse in about a second and grow up to 50-fold in memory;
        what is larger belongs in bytes, long text or arrays, which travel beside the JSON.
    :ivar buffers: bytes of raw buffers. Memory follows what arrives, up to this.
    :ivar depth: containers in containers. Deeper JSON overflows the stack of small threads and
        kills the process, so it is counted before it is parsed.
    """

    text: int = 16 * MIB
    buffers: int = 1024 * MIB
    depth: int = 100
