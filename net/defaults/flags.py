"""The flags that every peer knows."""
from __future__ import annotations

from typing import Any, Sequence, Tuple

from ..decorators import flag
from ..errors import MAX_NEAR, InvalidConnection
from ..identity import printable, tag_name


@flag("NULL")
def null_response(connection: bytes, peer: Any) -> str:
    """The flag NULL: the call gives the text ``NULL``."""
    return "NULL"


@flag("INVALID_CONNECTION")
def invalid_connection(connection: bytes, peer: Any, near: Sequence[str] = ()) -> None:
    """The flag INVALID_CONNECTION: that peer has no function of this tag.

    :param near: similar names of tags there, a few in a list or tuple; anything else is ignored.
    :raises InvalidConnection: always.
    """
    raise InvalidConnection(connection, tag_name(connection), peer, _names(near))


def _names(near: Any) -> Tuple[str, ...]:
    # A stranger may give anything, and a range would unroll to any size.
    if type(near) not in (list, tuple) or len(near) > MAX_NEAR \
            or not {str}.issuperset(map(type, near)):
        return ()
    return tuple(map(printable, near))
