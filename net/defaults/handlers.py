"""The functions that every peer has. Registering them launches nothing."""
from __future__ import annotations

import inspect
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Dict, List, Tuple, Union

from ..calls.ways import kind_of
from ..decorators import Connected, register
from ..context import caller
from ..errors import NetError
from ..identity import PeerArgument, tag_name
from ..peer import DEFAULTS, Peer, _Peer, function_names, serving_peer
from ..process import process
from ..settings import settings
from ..wire.legacy import is_marked

# Characters of the names of functions that a peer gives to each search that connects to it.
MAX_LISTED = 4096
# Seconds to reach a caller that asks whether it can be reached.
REACH_TIME = 3.0
# Characters that are given of a signature, of the first line of a docstring and of a whole one; and
# characters of one answer.
MAX_SIGNATURE, MAX_LINE, MAX_DOC, MAX_TOLD = 1000, 200, 16 * 1024, 64 * 1024


@register
def null(*args: Any, **kwargs: Any) -> Any:
    """Accept anything and return the flag NULL, which gives ``"NULL"``: the shortest possible call.
    """
    return Peer().get_flag("NULL")


@register
def info(*args: Any, **kwargs: Any) -> Dict[str, Any]:
    """What a peer says about itself, as :attr:`net.peer._Peer.friendly_id` describes it, and
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
    """Return the arguments: a single one as it is, several as ``(args, kwargs)``."""
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
def describe(*names: str, after: str = "") -> Dict[str, Dict[str, Any]]:
    """A peer's description of its functions, by name: ``signature``, ``doc``, ``groups`` that alone
    may call it (None for all callers), and ``kind``: ``function``, ``coroutine``, ``generator`` or
    ``async`` (an async generator).

    Without names it describes all functions that the application has connected, ordered by name,
    with the first line of each docstring; with names only those, with their whole docstrings. One
    answer holds some 64 KiB: ``describe(after=last_name)`` gives the functions that follow.
    ``NET_DESCRIBE`` of that peer may withhold docstrings, or signatures too.

    :param names: of functions, as in ``net.connections()``; those that do not exist are left out.
    :param after: only those whose names come after this one.
    """
    own = {tag_name(tag): (tag, function) for tag, function in list(_Peer.CONNECTIONS.items())
           if not is_marked(tag)}
    wanted = [name for name in sorted(names or own) if name > after and name in own
              and (names or not name.startswith(DEFAULTS))]
    told: Dict[str, Dict[str, Any]] = {}
    room = MAX_TOLD
    for name in wanted:
        told[name] = _description(*own[name], whole=bool(names))
        room -= len(name) + sum(len(str(fact)) for fact in told[name].values())
        if room <= 0:
            break
    return told


def _description(tag: bytes, function: Any, whole: bool) -> Dict[str, Any]:
    allowed = _Peer.GROUPS.get(tag)
    doc = (inspect.getdoc(function) or "") if settings.describe == "full" else ""
    if not whole:
        doc = doc.strip().partition("\n")[0]
    return {"signature": _signature(function, for_people=True)[:MAX_SIGNATURE],
            "doc": doc[:MAX_DOC if whole else MAX_LINE],
            "groups": None if allowed is None else sorted(allowed), "kind": kind_of(function)}


@register
def reach_back(port: int) -> Tuple[str, str]:
    """Try to reach the host of the caller at a port, as a call does; ``python3 -m net doctor PEER``
    asks for it. Nothing is sent but a greeting, and only to where the question came from.

    :returns: the caller's host as it is seen from here, and what went wrong; an empty text if a
        peer answers there.
    :raises TypeError: not asked by another peer, or not a port.
    """
    found = caller()
    if found is None or type(port) is not int or not 0 < port < 65536:
        raise TypeError("a peer asks this of another one, with its own port")
    address = found.address or serving_peer().place
    assert address is not None, "a call came, so a peer serves"
    try:
        connection = process.client.connect((address[0], port), REACH_TIME)
        if connection is not None:
            connection.close()
    except NetError as problem:
        return address[0], f"{type(problem).__name__}: {problem}"
    return address[0], ""


@register
def subscription_handler(event: str, peer_id: PeerArgument, tag: Union[bytes, str]) -> bool:
    """Subscribe a peer: its function of this tag is to be called with every event of this name.

    Programs of older versions call this on a peer to hear its events, and :func:`net.subscribe`
    calls it on theirs. Peers of this version subscribe over a connection that stays open.

    :param peer_id: id of the subscribing peer.
    :returns: True.
    :raises PermissionError: the call came from a host other than the one that the id names.
    :raises PeerBusy: too many subscriptions, 256 of one peer or 10,000 of all.
    :raises NetError: the subscribing peer cannot be reached from here.
    """
    from ..events import accept  # loaded since the peer was launched

    return accept(event, peer_id, tag)


def _signature(function: Any, for_people: bool = False) -> str:
    if settings.describe == "names":
        return "(...)"
    try:
        found = inspect.signature(function)
        return str(_without_quotes(found) if for_people else found)
    except (TypeError, ValueError):
        return "(...)"


class _Text:
    """An annotation that is a text, as it was written."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _without_quotes(found: inspect.Signature) -> inspect.Signature:
    def plain(annotation: Any) -> Any:
        return _Text(annotation) if isinstance(annotation, str) else annotation
    return found.replace(return_annotation=plain(found.return_annotation), parameters=[
        one.replace(annotation=plain(one.annotation)) for one in found.parameters.values()])
