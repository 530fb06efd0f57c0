"""Sockets without a library: what the machine allows, and what anyone would write first."""
from __future__ import annotations

import functools
import json
import socket
import struct
import sys
import threading
from typing import Any, Callable

from .base import FUNCTIONS, HOST, Calls, System

LENGTH = struct.Struct("!Q")


def dial(port: int) -> socket.socket:
    connection = socket.create_connection((HOST, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def accept_each(ready: Callable[[int], None], serve_one: Callable[[socket.socket], None]) -> None:
    """Serve every connection in a thread of its own, for ever."""
    listener = socket.create_server((HOST, 0), backlog=128)
    ready(listener.getsockname()[1])
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve_one, args=(connection,), daemon=True).start()


# ---- raw: bytes there and back, no codec, nothing looked up


def send_bytes(connection: socket.socket, data: bytes) -> None:
    if len(data) < 65536:
        connection.sendall(LENGTH.pack(len(data)) + data)
    else:
        connection.sendall(LENGTH.pack(len(data)))
        connection.sendall(data)


def receive_bytes(connection: socket.socket) -> bytes:
    header = connection.recv(LENGTH.size, socket.MSG_WAITALL)
    return connection.recv(LENGTH.unpack(header)[0], socket.MSG_WAITALL) if header else b""


def serve_raw(ready: Callable[[int], None]) -> None:
    def serve_one(connection: socket.socket) -> None:
        with connection:
            while True:
                data = receive_bytes(connection)
                if not data:
                    return
                send_bytes(connection, data)

    accept_each(ready, serve_one)


def connect_raw(port: int) -> Calls:
    connection = dial(port)
    request = b"x" * 60  # about what one small call weighs in JSON

    def exchange(data: bytes) -> bytes:
        send_bytes(connection, data)
        return receive_bytes(connection)

    def multiply(a: int, b: int) -> int:
        return a * b if exchange(request) == request else 0

    def echo(value: Any) -> Any:
        if isinstance(value, str):
            return exchange(value.encode()).decode()
        if isinstance(value, bytes):
            return exchange(value)
        numpy = sys.modules.get("numpy")
        if numpy and isinstance(value, numpy.ndarray):
            return numpy.frombuffer(exchange(value.tobytes()), value.dtype).reshape(value.shape)
        raise TypeError(f"no codec for {type(value).__name__}")

    return Calls(multiply, echo, connection.close)


# ---- floor: a length, JSON both ways, a dictionary of functions


def send_json(connection: socket.socket, value: Any) -> None:
    data = json.dumps(value).encode()
    connection.sendall(LENGTH.pack(len(data)) + data)


def receive_json(stream: Any) -> Any:
    header = stream.read(LENGTH.size)
    return json.loads(stream.read(LENGTH.unpack(header)[0])) if header else None


def serve_floor(ready: Callable[[int], None]) -> None:
    def serve_one(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while True:
                request = receive_json(stream)
                if request is None:
                    return
                function = FUNCTIONS[request["connection"]]
                result = function(*request["args"], **request["kwargs"])
                send_json(connection, {"result": result})

    accept_each(ready, serve_one)


def connect_floor(port: int) -> Calls:
    connection = dial(port)
    stream = connection.makefile("rb")

    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        send_json(connection, {"connection": name, "args": args, "kwargs": kwargs})
        return receive_json(stream)["result"]

    def close() -> None:
        stream.close()
        connection.close()

    return Calls(functools.partial(call, "multiply"), functools.partial(call, "echo"), close)


SYSTEMS = (
    System("raw", "raw socket, no codec", "socket", serve_raw, connect_raw),
    System("floor", "naive socket + JSON (the floor)", "json", serve_floor, connect_floor),
)
