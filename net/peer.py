"""The peer of this process: its identity, its registries and its server."""
from __future__ import annotations

import copy
import functools
import inspect
import json
import os
import socket
import stat
import sys
import threading
from operator import itemgetter
from time import monotonic, sleep
from typing import (TYPE_CHECKING, Any, Callable, Dict, FrozenSet, Iterable, List, Optional, Tuple,
                    Union)

from .context import current
from .dispatch import Dispatch
from .log import warn
from .settings import parse_group, settings
from .hosting import announce_to_children, is_token, stale_parent, why_not_here
from .errors import Address, NetError, NoFreePort, ValueNotSupported
from .identity import (Flag, PeerArgument, PeerId, Place, by_name, decode_text, encode_text,
                       functions_digest, make_id, make_tag, old_tag_of_function, place_text,
                       printable, tag_name, tag_of_function, without_zone)
from .link import local
from .link.base import Deadline, Endpoint, Listener, listen_at, listen_in_range
from .link.tcp import TcpCarrier
from .process import Process, process
from .wire import kinds
from .wire.legacy import plain_tag, unmarked
from .wire.memo import Memo

if TYPE_CHECKING:
    from .executors import ExecutorOrLoop
    from .run.server import Server

#: What stands for every address of a host.
EVERYWHERE = (local.EVERY_ADDRESS, local.EVERY_ADDRESS_6)

# Seconds for a host to accept a connection or refuse it.
PING_TIME = 0.25


class FriendlyId(Dict[str, Any]):
    """What a peer says about itself: a dict, and as ``str()`` a line of text.

    :ivar host: as in the dict; likewise ``port``, ``group`` and ``hub``.
    """

    host = property(itemgetter("host"))
    port = property(itemgetter("port"))
    group = property(itemgetter("group"))
    hub = property(itemgetter("hub"))

    def __str__(self) -> str:
        place = place_text((str(self.get("host")), self.get("port", 0)))
        parts = [f"peer {place}", f"group {self['group']}" if self.get("group") else "no group"]
        if self.get("hub"):
            parts.append("hub")
        if self.get("label"):
            parts.append(str(self["label"]))
        parts.append(f"{self.get('program')} (pid {self.get('pid')}) on {self.get('name')}")
        parts.append(f"{self.get('python')}, app-net {self.get('version')}")
        return ", ".join(printable(part) for part in parts)


class _Peer:
    """A peer: what other processes call.

    :func:`net.Peer` makes the one of this process, and nothing else does. Others are for tests;
    they share the registries, which belong to the class.

    :param launch: start serving at once.
    :param test: a second peer within one process: on loopback only, and on any free port if the
        range is taken.
    :param group: group of this peer; the setting ``NET_GROUP`` if None.
    :raises RuntimeError: it is not to be a test peer.
    :raises NoFreePort: every port of the range is taken.
    :raises ValueError: not a group's name.
    """

    #: tag -> function
    CONNECTIONS: Dict[bytes, Callable[..., Any]] = {}
    #: tag -> the groups that alone may call it
    GROUPS: Dict[bytes, FrozenSet[str]] = {}
    #: tag -> where the function runs, if not in the thread of its caller's connection
    EXECUTORS: Dict[bytes, ExecutorOrLoop] = {}
    #: event -> peer id -> tags of that peer's handlers
    SUBSCRIPTIONS: Dict[str, Dict[bytes, Any]] = {}
    #: flag -> handler
    FLAGS: Dict[bytes, Callable[..., Any]] = {}
    # What its process has once; a test may make another one.
    process: Process = process
    #: What sends its events; None for the one of the process.
    publisher: Any = None

    def __init__(self, launch: bool = True, test: bool = False,
                 group: Optional[str] = None) -> None:
        if not test and (type(self) is _Peer or self.process.peer is not None):
            raise RuntimeError("the peer of this process is net.Peer(); one beside it is for "
                               "tests: test=True")
        self._begin(launch, test, group)

    def _begin(self, launch: bool = True, test: bool = False, group: Optional[str] = None) -> None:
        self._test = test
        self._group = parse_group(group)
        # Guards _server and _closers: one launch or close at a time, hooks included. Reentrant: a
        # hook or a signal handler may close, too.
        self._changing = threading.RLock()
        self._server: Optional[Server] = None
        self._closers: List[Callable[[], None]] = []
        #: The addresses that it has bound, since it was launched.
        self.bound: List[str] = []
        self.instance = self.process.instance
        self.process.peers.append(self)
        if launch:
            self.launch()

    def launch(self) -> "_Peer":
        """Start serving; does nothing if it serves already.

        :raises NoFreePort: every port of the range is taken.
        :raises OSError: ``NET_HOST`` is no address of this host.
        """
        with self._changing:
            if self._server is not None:
                return self
            _warn_of_readable_secret()
            # Here, so that no thread of ours loads what it needs: where this process forks
            # meanwhile, the child would wait for that for ever.
            self.process.load()
            _user(), _python(), functions_digest([])
            from .run.server import Server  # with it, as few processes have no peer

            listeners = self._listen()
            try:
                hand_over = None if self.process.hand_over is None else \
                    functools.partial(self.process.hand_over, owner=self)
                server = self._server = Server(self._dispatch(), listeners, self.process.loop,
                                               settings, self.instance, hand_over)
            except BaseException:
                for listener in listeners:
                    listener.close()
                raise
            try:
                for hook in list(self.process.launch_hooks):
                    closer = hook(self)
                    self._closers.append(closer)
            except BaseException:
                self.close()
                raise
            if self._server is not server:  # it was closed within a hook
                self.close()
        return self

    def _listen(self) -> List[Listener]:
        """Listen at the address of this peer, and beside it for the processes of this host."""
        hosts = ["127.0.0.1"] if self._test else bind_hosts()
        listeners = listen_at(TcpCarrier(), hosts, settings.ports, settings.backlog, self._test)
        self.bound = [listener.endpoint.host for listener in listeners]
        for address in [listener.endpoint.address for listener in listeners]:
            beside = local.listen(address, settings.backlog) if settings.unix else None
            if beside is not None:
                listeners.append(beside)
        if not self._test and hosts[0] not in EVERYWHERE:
            listeners += _listen_for_old(listeners[0].endpoint.port)
        if not self._test:
            listeners += self._listen_otherwise(listeners)
        return listeners

    def _listen_otherwise(self, listeners: List[Listener]) -> List[Listener]:
        """Listen for peers that do not come over the networks of this host."""
        try:
            return self.process.client.carriers.listen(listeners[0].endpoint.port,
                                                       settings.backlog)
        except BaseException:
            for listener in listeners:
                listener.close()
            raise

    def _dispatch(self) -> Dispatch:
        return Dispatch(self.CONNECTIONS, self.GROUPS, self.EXECUTORS, self.process.memory,
                        self.process.event_loop, self.process.begin_old_call)

    def close(self, drain: float = 0.0) -> None:
        """Stop serving and end every connection to this peer. May be called again.

        :param drain: seconds for running calls to end; no new one is accepted meanwhile.
        """
        server = self._server
        if drain > 0 and server is not None:
            server.drain(drain)
        with self._changing:
            server, self._server = self._server, None
            closers, self._closers = self._closers, []
            if server is not None:
                server.close()
            # After the server: they may tell others that this address no longer answers.
            for close in closers:
                close()

    def __enter__(self) -> "_Peer":
        return self.launch()

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def launched(self) -> bool:
        """Whether this peer serves."""
        return self._server is not None

    @property
    def server(self) -> Optional[Server]:
        """The server, None while this peer does not serve."""
        return self._server

    @property
    def test(self) -> bool:
        """Whether this is a second peer, for tests."""
        return self._test

    @property
    def place(self) -> Optional[Address]:
        """Where this peer serves on its own host, whatever it advertises. None while it does not
        serve."""
        if self._server is None:
            return None
        host, port = self._server.address
        return (route_address() if host in EVERYWHERE else host), port

    @property
    def _advertised(self) -> Optional[Tuple[str, Optional[int]]]:
        return None if self._test else settings.advertise

    @property
    def host(self) -> str:
        """Address that this peer is reached at, numeric: what ``NET_ADVERTISE`` says, or where it
        serves."""
        if self._advertised is not None:
            return self._advertised[0]
        bound = self._server.address[0] if self._server else bind_hosts()[0]
        return route_address() if bound in EVERYWHERE else bound

    @property
    def port(self) -> Optional[int]:
        """Port that this peer is reached at, None while it does not serve."""
        if self._server is None:
            return None
        return self._advertised and self._advertised[1] or int(self._server.address[1])

    @property
    def hub(self) -> bool:
        """Whether this peer is the centre of an application (``NET_IS_HUB``)."""
        return settings.is_hub

    @property
    def group(self) -> Optional[str]:
        """Group of this peer, None for no group."""
        return settings.group if self._group is None else self._group

    @property
    def id(self) -> PeerId:
        """This peer's id, base64 of ``host:port -> group``. Launches the peer if it is not.

        :raises NoFreePort: every port of the range is taken.
        :raises NetError: launching is switched off by ``NET_LAUNCH``.
        """
        if self._server is None:
            if not settings.launch:
                raise NetError("this process serves no peer, because NET_LAUNCH switches it off; "
                               "net.Peer().launch() starts one all the same")
            self.launch()
        return self.generate_id(self.port or 0, without_zone(self.host), self.group)

    @property
    def friendly_id(self) -> FriendlyId:
        """What this peer says about itself, as :func:`net.info` gives it: a dict of ``group``,
        ``host``, ``port``, ``hub``, ``executable`` (of Python), the ``user`` that runs it,
        ``instance`` (random, one for each process), ``name`` of the host, ``pid``, ``program``,
        ``python``, ``platform``, ``version`` of app-net, ``facts`` of the application, ``digest``,
        which stands for its functions, and, if ``NET_NAME`` is set, ``label``, that name for
        people. ``str()`` of it is a line for people.
        """
        return FriendlyId(
            group=self.group, host=without_zone(self.host), port=self.port, hub=self.hub,
            executable=sys.executable or "", user=_user(),
            instance=self.instance, name=socket.gethostname()[:64], pid=os.getpid(),
            program=_program()[:64],
            python=_python(),
            platform=sys.platform, version=VERSION, facts=copy.deepcopy(settings.facts),
            digest=functions_digest(function_names()),
            **({"label": settings.name} if settings.name else {}))

    @classmethod
    def get_flag(cls, name: str) -> Flag:
        """The flag of a name, for a function to return.

        :raises LookupError: no such flag was defined with :func:`net.flag`.
        """
        flag = Flag(encode_text(str(name)))
        if flag not in cls.FLAGS:
            known = ", ".join(decode_text(one) for one in cls.FLAGS)
            raise LookupError(f"no flag {name!r}; there are {known}")
        return flag

    @classmethod
    def encode(cls, obj: Any) -> bytes:
        """Encode an object for delivery in the documented dialect: base64 of the JSON text of
        ``{"raw": obj}``, or of the object itself if it is a dict without a member ``raw``.
        :meth:`decode`, here and in older versions, gives back any JSON value. A flag stays as it
        is.

        :raises TypeError: JSON has no such type.
        """
        if type(obj) is Flag:
            return bytes(obj)
        whole = isinstance(obj, dict) and "raw" not in obj
        return encode_text(json.dumps(obj if whole else {"raw": obj}))

    @staticmethod
    def decode(byte_string: Union[bytes, str]) -> Any:
        """What :meth:`encode` has encoded. For an id, a tag or a flag, which hold no JSON, it is
        their text.

        :raises ValueError: not base64 of UTF-8.
        """
        text = decode_text(byte_string)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return value["raw"] if isinstance(value, dict) and set(value) == {"raw"} else value

    @staticmethod
    def ping(port: int, host: Optional[str] = None) -> bool:
        """Whether something listens on a port. Waits for 0.25 s at most.

        :param host: numeric address; by default that of this host.
        """
        try:
            TcpCarrier().connect(Endpoint("tcp", host or _call_host(), port),
                                 Deadline(PING_TIME)).close()
            return True
        except OSError:
            return False

    def request(self, peer: PeerArgument, connection: Union[bytes, str], args: Iterable[Any],
                kwargs: Dict[str, Any]) -> Any:
        """Call a function of another peer, which need not be connected here.

        :param connection: its tag, in base64 or as text.
        :returns: what it returned; for a flag, what its handler here gives.
        :raises NetError: as for any call.
        """
        tag = _tag_of(connection)
        result = self.process.client.call(peer, tag, tuple(args), kwargs)
        return handle_flag(result, tag, peer) if type(result) is Flag else result

    @staticmethod
    def generate_id(port: int, host: str, group: Optional[str] = None) -> PeerId:
        """The peer id of a port, a host and a group.

        :raises InvalidPeer: not a host or a port.
        """
        return make_id(port, host, group)

    @classmethod
    def decode_id(cls, id: Union[bytes, str]) -> Dict[str, Any]:
        """The parts of a peer id: ``{'group': str or None, 'host': str, 'port': int}``.

        :raises InvalidPeer: not a peer id.
        """
        peer = PeerId(id.encode("utf-8", "surrogatepass") if isinstance(id, str) else id)
        return {"group": peer.group, "host": peer.host, "port": peer.port}

    def __repr__(self) -> str:
        where = str(self.id) if self._server else "not launched"
        return f"<net.Peer {where}, group {self.group}>"

    def _change(self, launch: bool = True, test: bool = False,
                group: Optional[str] = None) -> None:
        """Apply what was given to :func:`net.Peer` when this peer existed already."""
        if test and not self._test or not launch and self.launched:
            raise RuntimeError("the peer of this process is launched already, by the first "
                               "decorated function or use of net.Peer(); give NET_LAUNCH=0 or "
                               "net.configure(launch=False) before that")
        if group is not None and parse_group(group) != self.group:
            self._group = parse_group(group)
            settings.set("group", self._group)

    def abandon(self) -> None:
        """Forget what belongs to the parent, in a forked child."""
        self._changing = threading.RLock()
        if self._server is not None:
            self._server.abandon()
        self._server, self._closers = None, []
        self.instance = self.process.instance


def handle_flag(flag: Flag, tag: bytes, peer: Any) -> Any:
    """The result that the handler of a flag gives, on the calling side.

    :param peer: that was called, None for this process.
    :raises ValueNotSupported: this process does not define the flag.
    """
    handler = _Peer.FLAGS.get(flag)
    if handler is None:
        if flag.text is not None:
            return flag.text
        raise ValueNotSupported("result", f"the flag {tag_name(flag)!r} is not defined in this "
                                          f"process with @net.flag", "yes")
    try:
        count = _counts[handler]
    except TypeError:  # it has no hash
        count = _positional(handler)
    if count > 1 and getattr(handler, "__module__", None) != DEFAULT_FLAGS:
        # Handlers written for older versions read its host and port; for a local call these were
        # given a dict.
        peer = serving_peer().friendly_id if peer is None else by_name(peer)
    return handler(*(tag, peer, flag.details)[:count])


def _positional(handler: Callable[..., Any]) -> int:
    """How many arguments, at most three, a handler takes by position."""
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):
        return 2
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 3
    return min(3, sum(parameter.kind in (parameter.POSITIONAL_ONLY,
                                         parameter.POSITIONAL_OR_KEYWORD)
                      for parameter in parameters))


_counts = Memo(_positional, 256)
# A handler may return what it was given.
kinds.let_travel_as_tuple(Place)


VERSION = "1.0.0"
#: The tag by which a process that a reloader has started asks the one that started it to stop
#: serving.
LEAVE = make_tag("net.defaults.handlers", "leave")
# Seconds for that.
LEAVE_TIME = 2.0
#: The module that handles the flags that every peer knows.
DEFAULT_FLAGS = "net.defaults.flags"
#: How the names of those functions begin that every peer has.
DEFAULTS = ("net.defaults.", "net.events.", "net.statistics.")


def _tag_of(connection: Union[bytes, str]) -> bytes:
    """The tag that is meant: what was given is the tag itself, perhaps in the form of 0.4, or, if
    it is not base64 of a text, its name."""
    given = connection.encode("utf-8") if isinstance(connection, str) else bytes(connection)
    try:
        if encode_text(decode_text(given)) == given:
            return plain_tag(given.decode("ascii")).encode("ascii")
    except ValueError:
        pass
    return encode_text(given.decode("utf-8"))


def _listen_for_old(port: int) -> List[Listener]:
    """Listen at other loopback addresses of this host's name as well: old programs on this host
    search there, and nowhere else on it. The same port, if it is free, is easiest to tell."""
    found: List[Listener] = []
    for host in local.named_loopback():
        for ports in (range(port, port + 1), settings.ports):
            try:
                found.append(listen_in_range(TcpCarrier(), host, ports, settings.backlog))
                break
            except OSError:
                pass  # taken; or that is no address of this host after all
    return found


def _user() -> str:
    import getpass  # takes longer than all the rest of an info

    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return ""  # no name in the environment, and none for the number of the user


def _program() -> str:
    """The name of the main program: of its file, or of the package that is run by ``-m``."""
    path = sys.argv[0] if sys.argv else ""
    folder, name = os.path.split(path)
    return os.path.basename(folder) if folder and name == "__main__.py" else name


def _python() -> str:
    # As the module platform says it. Loading that takes longer than all the rest of an info.
    name = sys.implementation.name
    name = {"cpython": "CPython", "pypy": "PyPy"}.get(name, name)
    return f"{name} {sys.version.split()[0]}"


def tag_for_old_peers(tag: bytes) -> bytes:
    """The tag that old programs have for a function of this process; any other tag is returned as
    it is."""
    function = _Peer.CONNECTIONS.get(tag)
    if function is None or tag_of_function(function) != tag:
        return tag
    return old_tag_of_function(function) or tag


def function_names() -> List[str]:
    """The names of the functions that this process offers, except those that every peer has."""
    names = {decode_text(unmarked(tag)) for tag in list(_Peer.CONNECTIONS)}
    return sorted(name for name in names if not name.startswith(DEFAULTS))


def functions_changed() -> None:
    """Tell the processes that list this peer that functions were registered or removed."""
    peer = process.peer
    if peer is not None and peer.launched:
        for hook in process.change_hooks:
            hook()


def own_instance() -> str:
    """The random id of this process, as its peers give it. Launches nothing."""
    return process.instance


def existing_peer() -> Optional[_Peer]:
    """The peer of this process; None if it was not made yet."""
    peer = process.peer
    assert peer is None or isinstance(peer, _Peer)
    return peer


def called_peer() -> Optional[_Peer]:
    """The peer that the running function was called through; None in a local call."""
    context = current()
    server = None if context is None else context.server
    return None if server is None else \
        next((peer for peer in list(process.peers)
              if peer.server is server and isinstance(peer, _Peer)), None)


def serving_peer() -> _Peer:
    """The peer that the running function was called through; in a local call that of this
    process, which is made if need be."""
    return called_peer() or Peer()


def Peer(launch: bool = True, test: bool = False, group: Optional[str] = None) -> _Peer:
    """The peer of this process, made and launched at the first use. In a function that was called
    through a test peer within this process, that one.

    The arguments are those of :class:`net.peer._Peer`. A group that is given later, after the first
    decorated function has launched the peer, counts from then on. Where no port is free this warns
    and gives a peer that does not serve; calling others works all the same. Any thread may call.

    :raises ValueError: not a group's name.
    :raises RuntimeError: the peer exists already, and ``test`` is given though it is no test peer,
        or ``launch=False`` though it serves.
    """
    if len(process.peers) > 1 and launch and not test and group is None:
        called = called_peer()
        if called is not None:
            return called
    with process.lock:
        peer = existing_peer()
        if peer is not None:
            peer._change(launch, test, group)
        else:
            peer = make_own_peer(False, test, group)
            # The next call through a hook gets this one.
            process.peer = peer
            try:
                if peer.group != settings.group:
                    # Also the group that this process calls with.
                    settings.set("group", peer.group)
                if launch and settings.launch:
                    _take_over_from_parent()
                    _launch_or_warn(peer)
                    _leave_to_children(peer)
            except BaseException:
                # Not a peer that silently does not serve: the next use raises again.
                process.peer = None
                process.peers.remove(peer)
                raise
        return peer


def make_own_peer(launch: bool = True, test: bool = False, group: Optional[str] = None) -> _Peer:
    """A peer that is not for tests, with the arguments of :class:`_Peer`."""
    peer = _Peer.__new__(_Peer)
    peer._begin(launch, test, group)
    return peer


def launch_by_decorator() -> None:
    """Launch the peer of this process, as the first decorated function does.

    Not where the same application is loaded in several processes and this one is only a worker or
    a loader of it; see :mod:`net.hosting`.
    """
    with process.lock:
        if process.peer is not None or not settings.launch:
            return
        problem = why_not_here()
        if problem is None:
            Peer()
        elif problem:
            _warn_once(problem)


def _launch_or_warn(peer: _Peer) -> None:
    try:
        peer.launch()
    except NoFreePort as problem:
        room = len(problem.ports)
        _warn_once(f"this process can find and call others but serves none: {problem}. There is "
                   f"room for {room} peers on a host; NET_PORT_RANGE={room + 9}, set for all "
                   f"processes on all hosts, makes it {room + 10}")
    except OSError as problem:
        _warn_once(f"this process can find and call others but serves none: {problem}")


def _leave_to_children(peer: _Peer) -> None:
    """Stop serving once a reloader has started a process with newer code."""
    token = announce_to_children(peer.place[1]) if peer.place is not None else None
    if token is None:
        return

    def leave(given: object) -> bool:
        if not is_token(given, token):
            return False
        # Not in the thread of the connection that this came on.
        threading.Thread(target=peer.close, name="net-leave", daemon=True).start()
        return True

    _Peer.CONNECTIONS[LEAVE] = leave


def _take_over_from_parent() -> None:
    parent = stale_parent()
    if parent is None:
        return
    address = (_call_host(), parent.port)
    try:
        left = process.client.call(address, LEAVE, (parent.token,), {}, LEAVE_TIME) is True
        ends = monotonic() + LEAVE_TIME
        while left and monotonic() < ends:  # until its port is free
            TcpCarrier().connect(Endpoint.of(address), Deadline(LEAVE_TIME)).close()
            sleep(0.01)
    except (NetError, OSError):
        pass  # it no longer serves


def _warn_of_readable_secret() -> None:
    if os.name != "posix":
        return
    for name, path in (("NET_SECRET_FILE", settings.secret_file),
                       ("NET_TLS_KEY", settings.tls_key)):
        try:
            mode = 0 if path is None else os.stat(path).st_mode
        except OSError:
            continue  # reading it says so
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            _warn_once(f"{name}={path} is open to other users, who could pass for this peer: "
                       f"chmod 600 {path}")


def _warn_once(text: str) -> None:
    if text not in process.warned:
        process.warned.add(text)
        warn(text)


def bind_hosts() -> List[str]:
    """What the peer of this process binds: unless ``NET_HOST`` is set, every address of IPv4 and of
    IPv6, since this host may get another one, or a second."""
    host = settings.host
    if host is None or host == local.EVERY_ADDRESS_6:
        return list(EVERYWHERE)
    return ["127.0.0.1" if host == "localhost" else host]


def _call_host() -> str:
    """Where to call a peer of this host that binds what the peer of this process does."""
    host = bind_hosts()[0]
    return "127.0.0.1" if host in EVERYWHERE else host


def route_address() -> str:
    """This host's address on the way to the network; 127.0.0.1 without one. Sends nothing."""
    if settings.loopback_only:
        return "127.0.0.1"
    from .link import interfaces  # few processes have no peer, and import as quickly as before

    # Without a way out there may be a network, such as two machines and a cable.
    return interfaces.way_out() or interfaces.first_address() or "127.0.0.1"
