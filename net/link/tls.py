"""Mutual TLS 1.3: only a peer with the secret, or a certificate of the authority, is let in.

TLS runs in memory, and the bytes travel over the same kind of socket as in open mode: a dead peer
raises no SIGPIPE, and another thread can end a connection without touching its TLS state, which
only one thread at a time may use.
"""
from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import tempfile
from time import monotonic
from typing import (Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Protocol, Sequence,
                    Tuple)

from ..settings import settings
from ..identity import without_zone
from ..errors import Address, AuthenticationError, NetError, PeerBusy, SettingError
from ..wire.frames import FAILURE, FIRST, CHUNK, Buffer, EndOfStream
from ..wire.messages import decode_reply, encode_refusal
from ..wire.limits import Limits
from ..wire.memo import Memo
from ..wire.session import Session as FrameSession, caller_session
from .authority import NO_TLS, NOT_NOW, OTHER_SECRET, Leaf, PEER_NAME, make_leaf
from ..forking import forks
from .streams import Deadline, NO_SIGNAL, Stream, fill, gathered

#: The first byte of a TLS hello, and of an alert.
HELLO, ALERT = 0x16, 0x15

# Bytes that are encrypted, or received of a large buffer, at a time: more would only take memory.
PIECE = 256 * 1024
# A refusal in the clear is a line of text.
MAX_REFUSAL = 4096

#: What an open caller is told by a secured peer.
CALLER_IS_OPEN = ("this peer is secured and the caller is not: start the caller with the same "
                  "NET_SECRET, or with NET_TLS_CERT, NET_TLS_KEY and NET_TLS_CA, as this peer")


class Credentials(NamedTuple):
    """What this process shows and which authority it trusts, in both roles.

    :ivar server: for connections that are accepted; ``client``, for those that are opened.
    :ivar advice: what to do when the two sides do not match.
    :ivar datagram_key: what datagrams are sealed with; None under certificates, where both sides
        share no secret.
    :ivar proof_key: with what processes of one user prove that they know the secret, see proof.py;
        None likewise.
    """

    server: ssl.SSLContext
    client: ssl.SSLContext
    advice: str
    datagram_key: Optional[bytes] = None
    proof_key: Optional[bytes] = None


def credentials() -> Credentials:
    """The credentials of this process, made at the first use. One thread at a time, see
    security.py.

    :raises SettingError: the settings contradict each other, a file cannot be read or a library is
        missing; the text says what to do.
    """
    made: Credentials = _of_revision[settings.revision]
    return made


def _make_credentials(revision: int) -> Credentials:
    files = {"NET_TLS_CERT": settings.tls_cert, "NET_TLS_KEY": settings.tls_key,
             "NET_TLS_CA": settings.tls_ca}
    given = {name: path for name, path in files.items() if path is not None}
    if settings.secret is not None or settings.secret_file is not None:
        if given or settings.secret is not None and settings.secret_file is not None:
            raise SettingError("set one of NET_SECRET, NET_SECRET_FILE, or NET_TLS_CERT with "
                               "NET_TLS_KEY and NET_TLS_CA; more than one is set")
        return from_secret()
    missing = [name for name in files if name not in given]
    if missing:
        raise SettingError(f"{', '.join(missing)} must be set, too: certificates need all of "
                           f"NET_TLS_CERT, NET_TLS_KEY and NET_TLS_CA")
    return from_files(*given.values())


_of_revision = Memo(_make_credentials, 1)


def from_secret() -> Credentials:
    """Credentials under the authority of the secret of the settings."""
    leaf = _leaf_of_secret()

    def load(context: ssl.SSLContext) -> None:
        _load_leaf(context, leaf)
        context.load_verify_locations(cadata=leaf.authority)

    return Credentials(_context(True, load), _context(False, load),
                       "both sides need the same NET_SECRET or NET_SECRET_FILE", leaf.datagrams,
                       leaf.proofs)


def _leaf_of_secret() -> Leaf:
    from ..settings import parse_secret

    secret = settings.secret
    if secret is None:
        text = _read("NET_SECRET_FILE", settings.secret_file or "")
        try:
            secret = parse_secret(text)
        except ValueError as problem:
            raise SettingError(f"what NET_SECRET_FILE names {problem}") from None
    assert secret is not None  # parse_secret() gives None only for None
    return make_leaf(secret.reveal())


def link_security(role: str) -> Dict[str, object]:
    """What an engine secures its links to routers with: the certificates that peers show each
    other, by the names that the configuration of Zenoh has for them.

    This comes on top of TLS from peer to peer, and proves less: Zenoh trusts the public
    authorities, too.

    :param role: ``connect`` or ``listen``.
    :raises SettingError: the settings for TLS cannot be used.
    """
    credentials()  # which raises for everything that can be wrong with the settings
    common: Dict[str, object] = {"enable_mtls": True, "verify_name_on_connect": False}
    if settings.tls_cert is not None:
        return {**common, "root_ca_certificate": settings.tls_ca,
                f"{role}_certificate": settings.tls_cert, f"{role}_private_key": settings.tls_key}
    from base64 import b64encode

    from cryptography.hazmat.primitives import serialization

    leaf = _leaf_of_secret()
    # The key never leaves this process.
    key = serialization.load_pem_private_key(leaf.key, leaf.password).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption())
    return {**common, **{f"{name}_base64": b64encode(text).decode() for name, text in (
        ("root_ca_certificate", leaf.authority.encode()), (f"{role}_certificate", leaf.certificate),
        (f"{role}_private_key", key))}}


# The numbers that OpenSSL has for: not valid yet, not valid any more.
_TIMES = 9, 10


def link_problem(sock: socket.socket, seconds: float, refusal: float) -> str:
    """Why there is no TLS with a router that a socket is connected to; empty if there is. Zenoh
    itself does not say why. Closes the socket.

    :param seconds: for the handshake.
    :param refusal: seconds for the router to refuse our certificate; 0 not to wait for that.
    """
    sock.settimeout(seconds)
    with forks.lock:
        tls = credentials().client.wrap_socket(sock, do_handshake_on_connect=False)
    try:
        tls.do_handshake()
        if refusal:
            tls.settimeout(refusal)
            tls.recv(1)
    except ssl.SSLCertVerificationError as problem:
        return NOT_NOW if problem.verify_code in _TIMES else OTHER_SECRET
    except ssl.SSLError as problem:
        reason = problem.reason or ""
        return NOT_NOW if "EXPIRED" in reason else OTHER_SECRET if "ALERT" in reason else NO_TLS
    except OSError:
        return "" if tls.version() is not None else NO_TLS
    finally:
        tls.close()
    return ""


def from_files(certificate: str, key: str, authority: str) -> Credentials:
    """Credentials from PEM files.

    :raises SettingError: a file cannot be read, or they do not belong together.
    """
    for name, path in (("NET_TLS_CERT", certificate), ("NET_TLS_KEY", key),
                       ("NET_TLS_CA", authority)):
        _read(name, path)

    def load(context: ssl.SSLContext) -> None:
        try:
            # Without a password of our own, OpenSSL would ask for one at the terminal.
            context.load_cert_chain(certificate, key, password=lambda: "")
        except (OSError, ValueError) as problem:
            raise SettingError(f"NET_TLS_CERT={certificate} and NET_TLS_KEY={key} cannot be used: "
                               f"{problem}; a certificate and its key as PEM, the key not "
                               f"encrypted") from None
        try:
            context.load_verify_locations(authority)
        except (OSError, ValueError) as problem:
            raise SettingError(f"NET_TLS_CA={authority} holds no certificate authority as PEM: "
                               f"{problem}") from None

    return Credentials(
        _context(True, load), _context(False, load),
        f"both sides need a certificate of the other's NET_TLS_CA that is valid now by the clocks "
        f"of both hosts, serves as client and as server, and names the address it is used at or "
        f"{PEER_NAME}")


def _read(name: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(2 ** 20)
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is no text"
        raise SettingError(f"{name}={path} cannot be read: {reason}; name a file that this user "
                           f"may read") from None


def _context(server: bool, load: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    # Names are checked by is_for(), in both roles.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if server:
        # A ticket would arrive unasked, and make an idle connection look as if it had ended.
        context.num_tickets = 0
    load(context)
    return context


def _load_leaf(context: ssl.SSLContext, leaf: Leaf) -> None:
    # The standard library loads a key from a file only. No other user may read this one; it is
    # encrypted, and removed right after.
    try:
        descriptor, path = tempfile.mkstemp(prefix="net-", suffix=".pem")
    except OSError as problem:
        raise SettingError(f"NET_SECRET needs a folder for a short-lived file, see TMPDIR: "
                           f"{problem}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(leaf.certificate + leaf.key)
        context.load_cert_chain(path, password=leaf.password)
    except OSError as problem:
        raise SettingError(f"NET_SECRET needs room for a short-lived file, see TMPDIR: "
                           f"{problem}") from None
    finally:
        os.unlink(path)


class Session:
    """TLS of one connection, without a socket: bytes in, bytes out. One thread at a time.

    What is written before the handshake has ended leaves once it has.

    :param address: ``(host, port)`` of the other side; None if it has none.
    :ivar ready: whether the handshake has ended. Even then a client knows that the server has
        accepted its certificate only when something was received.
    """

    def __init__(self, known: Credentials, address: Optional[Address], server: bool) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = known.server if server else known.client
        with forks.lock:
            self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server)
        self.ready = False
        # What certificates of the application say; one that is made of a secret says nothing.
        self._attests = known.datagram_key is None
        self._attested: Optional[str] = None
        #: Whether the other side has proved that it is at the address that was called.
        self.proves_address = False
        self._advice = known.advice
        self._address = address
        self._whose = "the caller's" if server else "its"
        self._waiting: List[Buffer] = []
        self._begun = server

    def write(self, data: Buffer) -> None:
        """Take data to be sent; :meth:`output` then gives the bytes that are to leave."""
        if self.ready:
            self.tls.write(data)
        else:
            self._waiting.append(data)
            self.shake_hands(b"")

    def output(self) -> bytes:
        """What is to be sent now, encrypted."""
        return self.outgoing.read()

    def feed(self, data: bytes) -> bytes:
        """Take what was received, and return the data in it, decrypted.

        :raises AuthenticationError: the two sides do not match; what :meth:`output` gives is to be
            sent all the same.
        """
        if not self.ready:
            self.shake_hands(data)
            data = b""
        if not self.ready:
            return b""
        try:
            return self._decrypted(data)
        except ssl.SSLError as problem:
            raise self.failure(problem) from None

    def shake_hands(self, data: bytes) -> bool:
        """Take what was received of the handshake, and perhaps more. Returns whether the handshake
        has ended.

        :raises AuthenticationError: as :meth:`feed` does.
        """
        if data and not self._begun:
            self._begun = True
            if data[0] not in (HELLO, ALERT):
                raise self.error("it does not speak TLS")
        self.incoming.write(data)
        try:
            with forks.lock:
                self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as problem:
            raise self.failure(problem) from None
        self.ready = True
        certificate: Dict[str, Any] = self.tls.getpeercert() or {}
        host = self._address[0] if self._address else ""
        if not is_for(certificate, host):
            raise self.error(f"{self._whose} certificate names neither {host} nor {PEER_NAME}")
        self._attested = group_of(certificate)
        self.proves_address = is_for(certificate, host, any_peer=False)
        for piece in self._waiting:
            self.tls.write(piece)
        self._waiting.clear()
        return True

    def group(self, claimed: Optional[str]) -> Optional[str]:
        """See :meth:`Stream.group`. Only once the handshake has ended."""
        return self._attested if self._attests else claimed

    def _decrypted(self, data: bytes) -> bytes:
        self.incoming.write(data)
        pieces: List[bytes] = []
        while True:
            try:
                piece = self.tls.read(CHUNK)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                piece = b""
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)

    def failure(self, problem: ssl.SSLError) -> AuthenticationError:
        """The error that an error of TLS becomes for whatever opens or accepts the connection."""
        if isinstance(problem, ssl.SSLCertVerificationError):
            return self.error(f"{self._whose} certificate is refused ({problem.verify_message})")
        reason = (problem.reason or str(problem)).replace("_", " ").lower()
        if "alert" in reason:
            return self.error(f"it refuses the certificate of this process ({reason})")
        return self.error(f"no TLS 1.3 is possible with it ({reason})")

    def error(self, what: str) -> AuthenticationError:
        """An error that says what to do."""
        return AuthenticationError(self._address, f"{what}; {self._advice}")


def is_for(certificate: Dict[str, Any], host: str, any_peer: bool = True) -> bool:
    """Whether a certificate is meant for a peer: for any, if that counts, or for the one at this
    host."""
    return any(_names(kind, name.strip(), host, any_peer)
               for kind, name in certificate.get("subjectAltName", ()))


def _names(kind: str, name: str, host: str, any_peer: bool) -> bool:
    if kind == "DNS":
        return any_peer if name.lower() == PEER_NAME else name.lower() == host.lower()
    if kind != "IP Address":
        return False
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(without_zone(host))
    except ValueError:  # the host is a name
        return False


def group_of(certificate: Dict[str, Any]) -> Optional[str]:
    """The group that a certificate attests: its organizational unit."""
    parts: Iterable[Tuple[str, str]] = (
        part for one in certificate.get("subject", ()) for part in one)
    return next((text for name, text in parts if name == "organizationalUnitName"), None)


class TlsStream(Stream):
    """A stream whose bytes travel encrypted; the rest is that of any stream."""

    def __init__(self, stream: Stream, session: Session) -> None:
        super().__init__(stream.sock)
        self._session = session
        # Whether data was received, which proves that the server has accepted our certificate.
        self._confirmed = False
        # Whether a part of what was decrypted may be left.
        self._rest = False
        # Of a non-blocking send: the encrypted bytes that are left, and how many plain ones they
        # stand for.
        self._left, self._counts = b"", 0
        self._incoming = session.incoming
        self._receive, self._sendall = stream.sock.recv, stream.sock.sendall
        self._feed, self._read = session.incoming.write, session.tls.read
        self._pending = session.tls.pending
        self._write, self._output = session.tls.write, session.outgoing.read
        # That is the plain socket's. The method of this class cannot be kept in its place: in a
        # reference cycle the memory of TLS would wait for a garbage collection.
        del self.recv
        self._poll = self.poll
        del self.poll

    def recv(self, size: int) -> bytes:  # type: ignore[override]
        if not self._rest and not self._incoming.pending:
            data = self._receive(max(size, FIRST))
            if not data:
                # No close_notify: where a message ends is known from its length.
                return b""
            self._feed(data)
        while True:
            try:
                data = self._read(size)
                break
            except ssl.SSLWantReadError:  # there was only a part of a record
                self.begun = self.begun or monotonic()
                data = self._receive(max(size, FIRST))
                if not data:
                    return b""
                self._feed(data)
            except ssl.SSLError as problem:
                return self._broken(problem)
        self.begun = 0.0
        self._rest = len(data) == size and self._pending() > 0
        self._confirmed = True
        return data

    def _broken(self, problem: ssl.SSLError) -> bytes:
        if isinstance(problem, ssl.SSLZeroReturnError):
            return b""
        if not self._confirmed:
            # The server checks the certificate of a client that already considers itself connected.
            raise self._session.failure(problem) from None
        raise ConnectionAbortedError(f"TLS failed: {problem.reason}") from None

    def recv_exactly(self, size: int, prefix: bytes = b"") -> bytes:
        return fill(self.recv_into, size, prefix)

    def recv_into(self, view: memoryview) -> int:
        while True:
            try:
                size: int = self._read(len(view), view)  # type: ignore[assignment]
            except ssl.SSLWantReadError:
                data = self._receive(PIECE)
                if not data:
                    return 0
                self._feed(data)
            except ssl.SSLError as problem:
                return len(self._broken(problem))
            else:
                self._rest = size == len(view) and self._pending() > 0
                self._confirmed = True
                self.moved += size
                return size

    def send(self, pieces: Sequence[Buffer]) -> None:
        for piece in gathered(pieces) if len(pieces) > 1 else pieces:
            if len(piece) <= PIECE:
                self._write(piece)
                self._sendall(self._output(), NO_SIGNAL)
                continue
            with memoryview(piece) as whole:
                for start in range(0, len(whole), PIECE):
                    part = whole[start:start + PIECE]
                    self._write(part)
                    self._sendall(self._output(), NO_SIGNAL)
                    self.moved += len(part)

    def send_some(self, piece: Buffer) -> int:
        # What was encrypted cannot be taken back, so it counts as sent only when all of it has
        # left.
        if not self._left:
            part = memoryview(piece)[:PIECE]
            self._write(part)
            self._left, self._counts = self._output(), len(part)
        self._left = self._left[super().send_some(self._left):]
        return 0 if self._left else self._counts

    def group(self, claimed: Optional[str]) -> Optional[str]:
        return self._session.group(claimed)

    @property
    def proves_address(self) -> bool:
        return self._session.proves_address

    @property
    def holds_data(self) -> bool:
        return self._rest or bool(self._incoming.pending)

    def poll(self, milliseconds: float) -> Any:
        return self.holds_data or self._poll(milliseconds)


class Handshake(Protocol):
    """What a client does until its connection is secured, without a socket: bytes in, bytes out.

    Send :meth:`output` first, and after each :meth:`receive`, also when that raises.
    """

    @property
    def session(self) -> Optional[Session]:
        """What secures the connection from then on; None where it needs nothing more."""

    def output(self) -> bytes:
        """What is to be sent now."""

    def receive(self, data: bytes) -> bool:
        """Take what was received, no bytes at the end of the connection. Returns whether the
        handshake has ended."""

    def secured(self, stream: Stream) -> Stream:
        """The stream over the connection, once the handshake has ended."""


class ClientHandshake:
    """The :class:`Handshake` of TLS."""

    def __init__(self, known: Credentials, address: Address) -> None:
        self.session = Session(known, address, server=False)
        self.session.shake_hands(b"")
        self._address = address
        self._begun = False
        # Reads what a peer says in the clear.
        self._refusal: Optional[FrameSession] = None

    def output(self) -> bytes:
        """What is to be sent now."""
        return self.session.output()

    def receive(self, data: bytes) -> bool:
        """Take what was received, no bytes at the end of the connection. Returns whether the
        handshake has ended.

        :raises AuthenticationError: the two sides do not match.
        :raises PeerBusy: the peer has no room; it says so in the clear.
        :raises ConnectionResetError: the connection ended in the middle.
        """
        if not self._begun:
            self._begun = True
            if not data:
                # A peer in open mode does so at once. The connection of a killed peer is usually
                # reset.
                raise self.session.error("it closed the connection instead of speaking TLS: it "
                                         "has no secret, or is no peer, or was just ending")
            if data[0] == FAILURE:
                self._refusal = caller_session(Limits(MAX_REFUSAL, 0))
        if self._refusal is not None:
            self._read_refusal(self._refusal, data)
            return False
        if not data:
            raise ConnectionResetError("it closed the connection during the TLS handshake")
        return self.session.shake_hands(data)

    def _read_refusal(self, refusal: FrameSession, data: bytes) -> None:
        """Read the one message that is believed without TLS: that the peer is at its limit."""
        try:
            frame: Any = refusal.receive(data)
            if frame is None and data:
                return
            if frame is not None:
                decode_reply(frame, self._address, self._address, b"")
        except PeerBusy:
            raise
        except NetError:
            pass
        raise self.session.error("it does not speak TLS")

    def secured(self, stream: Stream) -> TlsStream:
        """The stream over the connection, once the handshake has ended."""
        return TlsStream(stream, self.session)


def connect(stream: Stream, known: Credentials, address: Address, deadline: Deadline) -> Stream:
    """Secure a connection that was just made to a peer.

    :raises AuthenticationError: the two sides do not match.
    :raises PeerBusy: the peer has no room; it says so in the clear.
    :raises OSError: the connection broke, or the time ran out. Only the handshake has left.
    """
    return shake_hands(stream, ClientHandshake(known, address), deadline)


def shake_hands(stream: Stream, handshake: Handshake, deadline: Deadline) -> Stream:
    """Do the client's side of a handshake. Returns the stream to use from then on.

    :param handshake: of TLS, or a :class:`~net.link.proof.ClientProof`.
    :raises NotProved: as :meth:`~net.link.proof.ClientProof.receive` does; all else as
        :func:`connect`.
    """
    sock = stream.sock
    ended = False
    while not ended:
        _send_output(handshake.output(), stream)
        sock.settimeout(deadline.remaining())
        try:
            ended = handshake.receive(sock.recv(CHUNK))
        except NetError:
            _send_output(handshake.output(), stream)
            raise
    _send_output(handshake.output(), stream)
    sock.settimeout(None)
    return handshake.secured(stream)


def _send_output(output: bytes, stream: Stream) -> None:
    """Send what a handshake has to send; if it fails, that includes telling the other side."""
    if output:
        try:
            stream.send((output,))
        except ConnectionError:
            pass  # what the other side said before it closed can still be received


def accept(stream: Stream, known: Credentials, address: Optional[Address], data: bytes,
           answered: Callable[[], object] = bool) -> TlsStream:
    """Secure a connection that a client has begun with a TLS hello.

    :param data: what was received of the hello so far.
    :param answered: called once the hello was answered, which is most of the work.
    :raises AuthenticationError: the client was refused, and was told so if that was possible.
    :raises EndOfStream: the client has gone.
    """
    session = Session(known, address, server=True)
    try:
        ended = _accept_step(session, stream, data)
        answered()
        while not ended:
            data = stream.recv(CHUNK)
            if not data:
                raise EndOfStream(1)
            ended = _accept_step(session, stream, data)
    except AuthenticationError as problem:
        if session.ready:  # this client considers itself connected
            TlsStream(stream, session).send(encode_refusal(0, problem))
        raise
    return TlsStream(stream, session)


def _accept_step(session: Session, stream: Stream, data: bytes) -> bool:
    try:
        return session.shake_hands(data)
    finally:
        _send_output(session.output(), stream)
