"""What an address has said about itself, however it was asked."""
from __future__ import annotations

from typing import Any, NamedTuple, Optional

from ..errors import Address
from .membership import Heard


class Answer(NamedTuple):
    """What an address says about itself.

    :ivar facts: as ``info`` gives them.
    :ivar found: how the address came to be asked, for people.
    :ivar seconds: from the first packet to the whole answer.
    :ivar at: monotonic time of the answer.
    :ivar dialect: the old dialect that it came in; empty for ours.
    :ivar heard: the datagram that said so; None if it was not one.
    :ivar size: bytes of the facts as they were sent.
    """

    address: Address
    facts: Any
    found: str
    seconds: float
    at: float
    dialect: str = ""
    heard: Optional[Heard] = None
    size: int = 0

    @property
    def old(self) -> bool:
        """Whether it is an old program's."""
        return bool(self.dialect)
