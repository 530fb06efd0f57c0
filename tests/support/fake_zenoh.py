"""A fake network of Zenoh: its sessions are in this process, and a test can keep from arriving what
they send."""
from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Set


class ZError(Exception):
    """As the library's."""


class FakeZenoh:
    """In place of the library.

    :ivar up: whether a session can be opened.
    :ivar passes: says of each frame, by its bytes, whether it arrives.
    :ivar sent: the frames that arrived.
    :ivar dropped: the keys whose process has answered a question to the end.
    """

    ZError = ZError
    CongestionControl = SimpleNamespace(BLOCK="block")
    SampleKind = SimpleNamespace(PUT="put", DELETE="delete")
    QueryTarget = SimpleNamespace(ALL="all")
    ConsolidationMode = SimpleNamespace(NONE="none")
    Locality = SimpleNamespace(REMOTE="remote")
    handlers = SimpleNamespace(Callback=lambda function, indirect: function)

    def __init__(self) -> None:
        self.up = True
        self.passes: Callable[[bytes], bool] = lambda data: True
        self.sent: List[bytes] = []
        self.dropped: List[str] = []
        self.sessions: List[Session] = []

    def Config(self) -> Any:  # noqa: N802
        return SimpleNamespace(insert_json5=lambda name, value: None)

    def open(self, config: Any) -> Session:
        if not self.up:
            raise ZError("no router")
        session = Session(self)
        self.sessions.append(session)
        return session

    @property
    def tokens(self) -> Set[str]:
        return {key for session in self.sessions for key in session.tokens}

    def deliver(self, key: str, data: bytes) -> None:
        if self.passes(data):
            self.sent.append(data)
            sample = SimpleNamespace(payload=SimpleNamespace(to_bytes=lambda: data))
            for session in list(self.sessions):
                for hear in session.hears.get(key, []):
                    hear(sample)

    def lives(self, key: str, kind: str) -> None:
        for session in list(self.sessions):
            session.lives(key, kind)

    def lose(self, session: Session) -> None:
        """The router has lost a session: its process was killed, or its cable cut."""
        self.sessions.remove(session)
        for key in session.tokens:
            self.lives(key, "delete")


class Payload(bytes):
    """As the library's."""

    def to_bytes(self) -> bytes:
        return bytes(self)


class Session:
    """One session; also its own ``liveliness()``."""

    def __init__(self, zenoh: FakeZenoh) -> None:
        self.zenoh = zenoh
        self.hears: Dict[str, List[Any]] = {}
        self.watches: List[Any] = []
        self.tokens: List[str] = []
        self.queryables: Dict[str, Any] = {}
        self.info = SimpleNamespace(routers_zid=lambda: ["router"], zid=lambda: "router")

    def liveliness(self) -> Any:
        return SimpleNamespace(declare_token=self._token, declare_subscriber=self._watch,
                               get=lambda key, timeout: [])

    def declare_subscriber(self, key: str, hear: Any) -> None:
        self.hears.setdefault(key, []).append(hear)

    def declare_queryable(self, key: str, hear: Any) -> None:
        self.queryables[key] = hear

    def get(self, key: str, take: Any, payload: bytes, **_options: Any) -> None:
        def reply(_key: str, data: bytes) -> None:
            take(SimpleNamespace(ok=SimpleNamespace(payload=Payload(data))))
        for session in list(self.zenoh.sessions):
            for name, hear in list(session.queryables.items()):
                if session is not self and re.fullmatch(key.replace("*", "[^/]*"), name):
                    hear(SimpleNamespace(payload=Payload(payload), reply=reply,
                                         drop=lambda: self.zenoh.dropped.append(name)))

    def declare_publisher(self, key: str, **_options: Any) -> Any:
        def put(data: bytes) -> None:
            if self not in self.zenoh.sessions:
                return  # as to nobody
            self.zenoh.deliver(key, bytes(data))
        return SimpleNamespace(put=put)

    def _watch(self, key: str, hear: Any, history: bool) -> None:
        self.watches.append((re.compile(key.replace("*", "[^/]*")), hear))
        for token in self.zenoh.tokens if history else ():
            self.lives(token, "put")

    def lives(self, key: str, kind: str) -> None:
        for pattern, hear in self.watches:
            if pattern.fullmatch(key):
                hear(SimpleNamespace(key_expr=key, kind=kind))

    def _token(self, key: str) -> Any:
        self.tokens.append(key)
        self.zenoh.lives(key, "put")

        def undeclare() -> None:
            self.tokens.remove(key)
            self.zenoh.lives(key, "delete")
        return SimpleNamespace(undeclare=undeclare)

    def close(self) -> None:
        if self in self.zenoh.sessions:
            self.zenoh.lose(self)
