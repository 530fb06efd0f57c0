"""gRPC with generic handlers: text and bytes as they are, everything else as JSON.

No generated message classes: that spares it the work of protobuf, so these figures are kind to it.
"""
from __future__ import annotations

import json
import sys
from typing import Any, Callable

from .base import HOST, Calls, System

#: Messages over 4 MB are refused by default.
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a second channel is a second connection
]


def serve(ready: Callable[[int], None]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    def multiply(request: Any, context: Any) -> Any:
        return request[0] * request[1]

    def echo(request: Any, context: Any) -> Any:
        return request

    handlers = {
        "multiply": grpc.unary_unary_rpc_method_handler(multiply, json.loads, encode_json),
        "echo_json": grpc.unary_unary_rpc_method_handler(echo, json.loads, encode_json),
        "echo_text": grpc.unary_unary_rpc_method_handler(echo, bytes.decode, str.encode),
        "echo_bytes": grpc.unary_unary_rpc_method_handler(echo),
    }
    # As many workers as the most client threads that are tried.
    server = grpc.server(ThreadPoolExecutor(64), options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    ready(port)
    server.wait_for_termination()


def encode_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def connect(port: int) -> Calls:
    import grpc

    channel = grpc.insecure_channel(f"{HOST}:{port}", options=OPTIONS)
    product = channel.unary_unary("/bench/multiply", encode_json, json.loads)
    echo_json = channel.unary_unary("/bench/echo_json", encode_json, json.loads)
    echo_text = channel.unary_unary("/bench/echo_text", str.encode, bytes.decode)
    echo_bytes = channel.unary_unary("/bench/echo_bytes")

    def multiply(a: int, b: int) -> int:
        return product([a, b])

    def echo(value: Any) -> Any:
        if isinstance(value, str):
            return echo_text(value)
        if isinstance(value, bytes):
            return echo_bytes(value)
        numpy = sys.modules.get("numpy")
        if numpy and isinstance(value, numpy.ndarray):
            reply = echo_bytes(value.tobytes())
            return numpy.frombuffer(reply, value.dtype).reshape(value.shape)
        return echo_json(value)

    return Calls(multiply, echo, channel.close)


SYSTEMS = (
    System("grpc", "gRPC", "grpc", serve, connect, "grpcio", shared=True),
)
