"""How two processes of one user on one host prove to each other that they know the secret.

Nothing is encrypted between them: what goes over a Unix socket stays in the kernel, and other
processes of this user could read the secret itself. What has to be proved is who the other end is:
a process without the secret could have taken the name that was connected to, and could pass on what
it hears. So each side proves not only that it knows the secret, but also between which two
processes it sees the connection; the kernel tells each side the other process.

The client sends :data:`FIRST` and a nonce; the server sends FIRST, its nonce and its proof; the
client sends its proof. What follows is as in open mode. If this does not succeed within
:data:`PROOF_TIME`, nothing is lost: the client connects once more by TCP, under TLS.
"""
from __future__ import annotations

import hmac
import os
import struct
from typing import Optional, Tuple

from .local import NotProved
from .streams import Stream
from .unix import PeerCredentials

#: The first byte of either side; no preface, TLS hello or old dialect begins like it.
FIRST = b"\xac"

#: Seconds until a client connects by TCP instead: a process that has taken the name may be silent.
PROOF_TIME = 1.0

NONCE_BYTES = PROOF_BYTES = 32
# What a proof is of: the side that makes it, both nonces, the process ids of client and server.
_CLAIM = struct.Struct("!6s32s32sII")
_CLIENT, _SERVER = b"client", b"server"


class ClientProof:
    """The client's side, as a :class:`~net.link.tls.Handshake`.

    :param server: the process that listens, as the kernel gives it.
    :ivar session: None, since nothing secures the connection from then on.
    """

    session = None

    def __init__(self, key: bytes, server: PeerCredentials) -> None:
        self._key = key
        self._pids = os.getpid(), server.pid
        self._nonce = os.urandom(NONCE_BYTES)
        self._output = FIRST + self._nonce
        self._data = b""

    def output(self) -> bytes:
        """What is to be sent now."""
        output, self._output = self._output, b""
        return output

    def receive(self, data: bytes) -> bool:
        """Take what was received, no bytes at the end of the connection. Returns whether the server
        has proved that it knows the secret.

        :raises NotProved: it has not, and will not.
        """
        self._data += data
        if not data or not self._data.startswith(FIRST):
            raise NotProved
        if len(self._data) < 1 + NONCE_BYTES + PROOF_BYTES:
            return False
        nonces = self._nonce, self._data[1:1 + NONCE_BYTES]
        if not hmac.compare_digest(self._data[1 + NONCE_BYTES:],
                                   _proof(self._key, _SERVER, *nonces, *self._pids)):
            raise NotProved
        self._output = _proof(self._key, _CLIENT, *nonces, *self._pids)
        return True

    def secured(self, stream: Stream) -> Stream:
        """The stream over the connection from then on."""
        return stream


class ServerProof:
    """The server's side: bytes in, bytes out.

    :param client: the process that has connected, as the kernel gives it.
    :ivar rest: what the client has sent beyond its proof.
    """

    def __init__(self, key: bytes, client: PeerCredentials) -> None:
        self.rest = b""
        self._key = key
        self._pids = client.pid, os.getpid()
        # The client's, once it has come, and ours.
        self._nonces: Optional[Tuple[bytes, bytes]] = None

    def output(self, data: bytes) -> bytes:
        """Take what was received until the client's nonce has come. Returns what is to be sent
        then, no bytes before."""
        self.rest += data
        if len(self.rest) < 1 + NONCE_BYTES:
            return b""
        self._nonces = self.rest[1:1 + NONCE_BYTES], os.urandom(NONCE_BYTES)
        self.rest = self.rest[1 + NONCE_BYTES:]
        return FIRST + self._nonces[1] + _proof(self._key, _SERVER, *self._nonces, *self._pids)

    def receive(self, data: bytes) -> bool:
        """Take what was received after the nonce. Returns whether the client has proved that it
        knows the secret.

        :raises NotProved: its proof is wrong.
        """
        assert self._nonces is not None
        self.rest += data
        if len(self.rest) < PROOF_BYTES:
            return False
        if not hmac.compare_digest(self.rest[:PROOF_BYTES],
                                   _proof(self._key, _CLIENT, *self._nonces, *self._pids)):
            raise NotProved
        self.rest = self.rest[PROOF_BYTES:]
        return True


def _proof(key: bytes, side: bytes, of_client: bytes, of_server: bytes, client: int,
           server: int) -> bytes:
    return hmac.digest(key, _CLAIM.pack(side, of_client, of_server, client, server), "sha256")
