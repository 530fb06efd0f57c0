"""What a test has of its peers: handles, to call them and to let something go wrong with them."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any, Dict, Optional

from ..errors import Address, NetError
from ..identity import PeerId
from ..objects import remote
from ..process import process
from .memory import MemoryPeer

# Seconds that a process has to end by itself, and to answer a command.
END_SECONDS, COMMAND_SECONDS = 5.0, 10.0


class TestPeer:
    """A peer of a test. It can be given as ``peer=``.

    :ivar id: its peer id.
    """

    __test__ = False  # which pytest would take it for
    id: PeerId

    @property
    def address(self) -> Address:
        """``(host, port)``."""
        return self.id.address

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call one of its functions by name, which need not exist in this process.

        :raises NetError: as for any call.
        """
        return remote(name).on(self.id)(*args, **kwargs)

    def delay(self, seconds: float) -> None:
        """Let everything that it sends and is sent take so many seconds longer. Searches find it
        later, or miss it."""
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"a delay is seconds from 0 on, not {seconds!r}")
        self._apply("delay", seconds)

    def loss(self, share: float) -> None:
        """Let this share of what it sends and is sent be lost, from 0 to below 1. On a connection
        it still arrives, as with TCP, but 0.2 seconds later, or more if it is lost again. Lost
        datagrams never arrive, so searches find the peer later, or miss it."""
        if not 0 <= share < 1:
            raise ValueError(f"a share is from 0 to below 1, not {share!r}")
        self._apply("loss", share)

    def cut(self) -> None:
        """Cut it off: connections to and from it break, and new ones end at once, so that calls
        raise PeerLost or PeerUnreachable. Searches do not find it, and it finds no peers."""
        self._apply("cut")

    def full(self) -> None:
        """Let it accept no more connections, and break those that others have opened: calls to it
        raise PeerBusy. Its own calls go on."""
        self._apply("full")

    def freeze(self) -> None:
        """Let it stand still: it accepts connections but does not answer, and what comes over them
        waits until it is healed."""
        self._apply("freeze")

    def heal(self) -> None:
        """End all faults; only :meth:`kill` is for good."""
        self._apply("heal")

    def kill(self) -> None:
        """End it at once, without a goodbye."""
        raise NotImplementedError

    def _apply(self, fault: str, value: float = 0.0) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


class LocalPeer(TestPeer):
    """A peer within this process, for use in a ``with`` statement.

    :ivar pid: the id of this process.
    """

    def __init__(self, peer: MemoryPeer) -> None:
        self._peer = peer
        self.pid = os.getpid()

    def __enter__(self) -> LocalPeer:
        self._peer.launch()
        self.id = self._peer.id
        return self

    def __exit__(self, *exc: object) -> None:
        if self.alive:
            self._peer.apply("heal")
        self._peer.close()
        self._peer.close_connections()
        process.peers.remove(self._peer)

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return self._peer.launched

    def kill(self) -> None:
        """Close it, without a goodbye."""
        self._peer.faults.cut = True  # for its goodbye, too
        self._peer.faults.end_connections()
        self._peer.close()

    def _apply(self, fault: str, value: float = 0.0) -> None:
        if not self.alive:
            raise NetError(f"the peer {self.id} was killed")
        self._peer.apply(fault, value)


class ProcessPeer(TestPeer):
    """A peer that is a process of its own, for use in a ``with`` statement. What it prints goes to
    standard error.

    :param app: the name of a module that it imports; None for none.
    :param values: its settings.
    :ivar pid: its process id.
    """

    def __init__(self, app: Optional[str], values: Dict[str, Any]) -> None:
        self._app = app
        self._values = values

    def __enter__(self) -> ProcessPeer:
        package = __name__.rpartition(".")[0]
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{package}.program", json.dumps(
                {"app": self._app, "path": sys.path, "settings": _texts(self._values)})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment())
        self.pid = self._process.pid
        self._frozen = False
        return self

    def __exit__(self, *exc: object) -> None:
        process = self._process
        if process.poll() is None and self._frozen:
            process.kill()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.close()  # which ends it
        except OSError:
            pass
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def wait_until_ready(self, seconds: float) -> None:
        """Wait until it serves.

        :raises NetError: it has ended, or was ended because it took more than these seconds.
        """
        self.id = PeerId(self._answer(seconds).encode("ascii"))

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill its process, without a goodbye."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Stop its process until it is healed; on systems where that is impossible, its network."""
        if not hasattr(signal, "SIGSTOP"):  # Windows
            self._apply("freeze")
            return
        self._process.send_signal(signal.SIGSTOP)
        if hasattr(os, "waitid"):
            # After this, all of its threads have stopped.
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)
        self._frozen = True

    def heal(self) -> None:
        """Let its process go on, and end all faults; only :meth:`kill` is for good."""
        if self._frozen:
            self._process.send_signal(signal.SIGCONT)
            self._frozen = False
        self._apply("heal")

    def _apply(self, fault: str, value: float = 0.0) -> None:
        if not self.alive:
            raise NetError(f"the process {self.pid} has ended")
        if self._frozen:
            raise NetError(f"the process {self.pid} is frozen; heal() it first")
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([fault, value]) + "\n")
        self._process.stdin.flush()
        self._answer(COMMAND_SECONDS)

    def _answer(self, seconds: float) -> str:
        """The next line that the process says to this one; kills it if it says none in time.

        :raises NetError: it has ended.
        """
        assert self._process.stdout is not None
        late = threading.Timer(seconds, self._process.kill)
        late.start()
        try:
            line = self._process.stdout.readline()
        finally:
            late.cancel()
            late.join()
        if not line:
            raise NetError(f"the process {self.pid} of {self._app or 'no application'} has ended "
                           f"with {self._process.wait()}, or has said nothing for {seconds:g} s; "
                           f"what it printed is on standard error")
        return line.strip()


def _texts(values: Dict[str, Any]) -> Dict[str, Any]:
    """Settings as they travel to the process."""
    return {name: value if value is None or isinstance(value, (bool, int, float, str, list, dict))
            else str(value) for name, value in values.items()}


def _environment() -> Dict[str, str]:
    """The environment without the settings of app-net, which are the developer's."""
    return {name: text for name, text in os.environ.items() if not name.startswith("NET_")}
