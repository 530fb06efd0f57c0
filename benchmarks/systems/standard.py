"""The standard library's own ways: multiprocessing (pickle) and XML-RPC."""
from __future__ import annotations

import functools
import threading
from typing import Any, Callable

from .base import FUNCTIONS, HOST, Calls, System, echo, multiply

AUTHKEY = b"benchmarks"


# ---- multiprocessing.connection


def serve_connection(ready: Callable[[int], None]) -> None:
    from multiprocessing.connection import Connection, Listener

    def serve_one(connection: Connection) -> None:
        with connection:
            while True:
                try:
                    name, args = connection.recv()
                except EOFError:
                    return
                connection.send(FUNCTIONS[name](*args))

    listener = Listener((HOST, 0), backlog=128, authkey=AUTHKEY)
    ready(listener.address[1])
    while True:
        threading.Thread(target=serve_one, args=(listener.accept(),), daemon=True).start()


def connect_connection(port: int) -> Calls:
    from multiprocessing.connection import Client

    connection = Client((HOST, port), authkey=AUTHKEY)

    def call(name: str, *args: Any) -> Any:
        connection.send((name, args))
        return connection.recv()

    return Calls(
        functools.partial(call, "multiply"), functools.partial(call, "echo"), connection.close
    )


# ---- multiprocessing.managers


class Service:
    def multiply(self, a: int, b: int) -> int:
        return a * b

    def echo(self, value: Any) -> Any:
        return value


def serve_manager(ready: Callable[[int], None]) -> None:
    from multiprocessing.managers import BaseManager

    service = Service()

    class Manager(BaseManager):
        pass

    Manager.register("service", callable=lambda: service)
    server = Manager((HOST, 0), authkey=AUTHKEY).get_server()
    ready(server.address[1])
    server.serve_forever()


def connect_manager(port: int) -> Calls:
    import multiprocessing
    from multiprocessing.managers import BaseManager

    class Manager(BaseManager):
        pass

    multiprocessing.current_process().authkey = AUTHKEY
    Manager.register("service")
    manager = Manager((HOST, port), authkey=AUTHKEY)
    manager.connect()
    proxy = manager.service()  # type: ignore[attr-defined]
    return Calls(proxy.multiply, proxy.echo, lambda: None)


# ---- xmlrpc


def serve_xmlrpc(ready: Callable[[int], None]) -> None:
    from socketserver import ThreadingMixIn
    from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

    class Handler(SimpleXMLRPCRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps the connection
        disable_nagle_algorithm = True
        wbufsize = -1  # headers and body leave in one piece

    class Server(ThreadingMixIn, SimpleXMLRPCServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server(
        (HOST, 0), Handler, logRequests=False, allow_none=True, use_builtin_types=True
    )
    server.register_function(multiply)
    server.register_function(echo)
    ready(server.server_address[1])
    server.serve_forever()


def connect_xmlrpc(port: int) -> Calls:
    from xmlrpc.client import ServerProxy

    proxy = ServerProxy(f"http://{HOST}:{port}", allow_none=True, use_builtin_types=True)
    return Calls(proxy.multiply, proxy.echo, proxy("close"))


SYSTEMS = (
    System("connection", "multiprocessing.connection", "multiprocessing",
           serve_connection, connect_connection),
    System("managers", "multiprocessing.managers", "multiprocessing",
           serve_manager, connect_manager, shared=True),
    System("xmlrpc", "xmlrpc", "xmlrpc", serve_xmlrpc, connect_xmlrpc),
)
