"""The functions that every peer has. Registering them launches nothing."""
from __future__ import annotations

import inspect
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Dict, List, Union

from ..decorators import Connected, register
from ..context import caller
from ..events import accept
from ..identity import PeerArgument, tag_name
from ..peer import Peer, function_names, serving_peer
from ..wire.legacy import is_marked

# Characters of the names of functions that a peer tells to each search that connects to it.
MAX_LISTED = 4096


@register
def null(*args: Any, **kwargs: Any) -> Any:
    """Take anything and return the flag NULL, which gives ``"NULL"``: the shortest call there is.
    """
    return Peer().get_flag("NULL")


@register
def info(*args: Any, **kwargs: Any) -> Dict[str, Any]:
    """What a peer says of itself, as :attr:`net.peer._Peer.friendly_id` describes it, and
    ``functions``, the names of its functions as far as 4 KiB hold them; ``more_functions`` is the
    number of the others, which :func:`net.connections` lists.

    :raises TypeError: a peer was given without ``peer=``.
    """
    if args and caller() is None:
        raise TypeError(f"net.info() describes this process; net.info(peer={args[0]!r}) asks that "
                        f"peer")
    names = function_names()
    room = accumulate(len(name) for name in names)
    listed = sum(size <= MAX_LISTED for size in room)
    more = {"more_functions": len(names) - listed} if listed < len(names) else {}
    return dict(serving_peer().friendly_id, functions=names[:listed], **more)


@register
def pass_through(*args: Any, **kwargs: Any) -> Any:
    """Give back what came: one argument as it is, several as ``(args, kwargs)``."""
    if len(args) == 1 and not kwargs:
        return args[0]
    return args, kwargs


class Functions(Dict[str, str]):
    """What :func:`net.connections` gives: a dict, and a table for people."""

    def __repr__(self) -> str:
        from ..tables import as_text, terminal_width

        return as_text(self._columns(), self._rows(), terminal_width())

    def _repr_html_(self) -> str:
        from ..tables import as_html

        return as_html(self._columns(), self._rows())

    def _rows(self) -> List[List[str]]:
        return [[str(name), str(signature)] for name, signature in sorted(self.items())]

    @staticmethod
    def _columns() -> List[Any]:
        from ..tables import Column

        return [Column("function", 20), Column("signature", 10)]


if TYPE_CHECKING:
    _Lister = Connected[[], Dict[str, str]]
else:
    _Lister = Connected


class _Shown(_Lister):
    """Shows as a table what travels as a plain dict."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = super().__call__(*args, **kwargs)
        return Functions(found) if type(found) is dict else found


@register
def connections() -> Dict[str, str]:
    """The functions that a peer has for others: name of the tag -> signature. Shown as a table."""
    return {tag_name(tag): _signature(function)
            for tag, function in list(Peer().CONNECTIONS.items()) if not is_marked(tag)}


connections = _Shown(connections.__wrapped__, connections.tag)


@register
def subscription_handler(event: str, peer_id: PeerArgument, tag: Union[bytes, str]) -> bool:
    """Subscribe a peer: its function of this tag is to be called with every event of this name.

    A peer calls this of another one to hear that one's events; :func:`net.subscribe` does so, and
    sees to it that it stays so.

    :param peer_id: id of the subscribing peer.
    :returns: True.
    :raises PermissionError: the call came from another host than the id names.
    :raises PeerBusy: too many subscriptions, 256 of one peer or 10,000 of all.
    :raises NetError: the subscribing peer cannot be reached from here.
    """
    return accept(event, peer_id, tag)


def _signature(function: Any) -> str:
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return "(...)"
