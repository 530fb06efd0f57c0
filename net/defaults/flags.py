"""The flags that every peer knows."""
from __future__ import annotations

from typing import Any, Tuple

from ..decorators import flag
from ..errors import InvalidConnection
from ..identity import tag_name


@flag("NULL")
def null_response(connection: bytes, peer: Any) -> str:
    """The flag NULL: the call gives the text ``NULL``."""
    return "NULL"


@flag("INVALID_CONNECTION")
def invalid_connection(connection: bytes, peer: Any, near: Tuple[str, ...] = ()) -> None:
    """The flag INVALID_CONNECTION: that peer has no function of this tag.

    :param near: names of tags there that look alike.
    :raises InvalidConnection: always.
    """
    raise InvalidConnection(connection, tag_name(connection), peer, tuple(near or ()))
