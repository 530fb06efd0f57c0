"""Awaited calls, streams and callbacks, compared with what one would use instead.

    python -m benchmarks.forms [--rounds 5] [--share 1.0]

An awaited call adds two numbers: one after the other, and 100 and 1,000 at once on one peer.
"asyncio alone" is two loops that send each other lines of JSON. A stream has small whole numbers as
items, and a callback is a function of the caller's that the called function calls. What is not
installed is left out, with the reason. ``python -m benchmarks`` has these rows, too.
"""
from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import importlib.util
import json
import os
import subprocess
import sys
import time
from typing import Any, Awaitable, Callable, Iterator

from . import report
from .measure import Result, interleave
from .processes import PROJECT

#: Calls at once, and calls in all.
AT_ONCE = ((1, 1000), (100, 5000), (1000, 5000))
ITEMS, CALLBACKS = 20_000, 2000

#: Awaits one call.
Call = Callable[[int], Awaitable[Any]]


# ------------------------------------------------------------------------------------ app-net


@functools.lru_cache(maxsize=None)
def connected() -> Any:
    import net

    @net.connect("add")
    async def add(number: int) -> int:
        return number + 1

    @net.connect("plain add")
    def plain_add(number: int) -> int:
        return number + 1

    @net.connect("items")
    def items(count: int) -> Iterator[int]:
        yield from range(count)

    @net.connect("repeat")
    def repeat(function: Callable[[int], int], count: int) -> int:
        return sum(function(number) for number in range(count))
    return add, plain_add, items, repeat


def serve_app_net() -> None:
    import net

    connected()
    say(net.Peer().port)
    sys.stdin.read()


def call_app_net(port: int) -> Any:
    add = connected()[0]
    return contextlib.nullcontext(lambda number: add(number, peer=("127.0.0.1", port)))


def iterate_app_net(port: int, count: int) -> Any:
    return connected()[2](count, peer=("127.0.0.1", port))


def call_back_app_net(port: int, count: int) -> int:
    found: int = connected()[3](lambda number: number, count, peer=("127.0.0.1", port))
    return found


# --------------------------------------------------------------------------------------- gRPC


def serve_grpc() -> None:
    import grpc

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            def stream(request: Any, context: Any) -> Any:
                yield from range(request)

            async def add(request: Any, context: Any) -> Any:
                return request + 1
            kinds = {"/b/add": (grpc.unary_unary_rpc_method_handler, add),
                     "/b/items": (grpc.unary_stream_rpc_method_handler, stream)}
            make, function = kinds[details.method]
            return make(function, request_deserializer=json.loads, response_serializer=encode)

    async def main() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Handler(),))
        say(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await server.stop(None)
    asyncio.run(main())


@contextlib.asynccontextmanager
async def call_grpc(port: int) -> Any:
    import grpc

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel.unary_unary("/b/add", request_serializer=encode,
                                  response_deserializer=json.loads)


def iterate_grpc(port: int, count: int) -> Any:
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield from channel.unary_stream("/b/items", request_serializer=encode,
                                        response_deserializer=json.loads)(count)


# ------------------------------------------------------------------------------------ aiohttp


def serve_aiohttp() -> None:
    from aiohttp import web

    async def add(request: Any) -> Any:
        return web.json_response(await request.json() + 1)

    async def main() -> None:
        application = web.Application()
        application.router.add_post("/add", add)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        say(runner.addresses[0][1])
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await runner.cleanup()
    asyncio.run(main())


@contextlib.asynccontextmanager
async def call_aiohttp(port: int) -> Any:
    import aiohttp

    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        async def add(number: int) -> Any:
            async with session.post("/add", json=number) as response:
                return await response.json()
        yield add


# -------------------------------------------------------------------------------- asyncio alone


class Lines(asyncio.Protocol):
    """Lines of JSON over a connection."""

    def __init__(self, heard: Callable[[Any, Any], object]) -> None:
        self._heard = heard
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._heard(self.transport, json.loads(line))


def serve_asyncio() -> None:
    tasks = set()

    async def add(transport: Any, call: Any) -> None:
        transport.write(encode([call[0], call[1] + 1]) + b"\n")

    def heard(transport: Any, call: Any) -> None:
        task = asyncio.get_running_loop().create_task(add(transport, call))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Lines(heard), "127.0.0.1", 0)
        say(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, sys.stdin.read)
    asyncio.run(main())


@contextlib.asynccontextmanager
async def call_asyncio(port: int) -> Any:
    """What two loops take without any library: one connection, calls by number."""
    loop, waiting = asyncio.get_running_loop(), {}

    def heard(transport: Any, reply: Any) -> None:
        waiting.pop(reply[0]).set_result(reply[1])

    async def add(number: int) -> Any:
        found = waiting[number] = loop.create_future()
        lines.transport.write(encode([number, number]) + b"\n")
        return await found
    transport, lines = await loop.create_connection(lambda: Lines(heard), "127.0.0.1", port)
    yield add
    transport.close()


# ------------------------------------------------------------------------ RPyC, Pyro5, execnet


def serve_rpyc() -> None:
    import rpyc
    from rpyc.utils.server import ThreadedServer

    class Service(rpyc.Service):
        def exposed_items(self, count: int) -> Any:
            yield from range(count)

        def exposed_repeat(self, function: Any, count: int) -> int:
            return sum(function(number) for number in range(count))
    server = ThreadedServer(Service, hostname="127.0.0.1", port=0)
    say(server.port)
    server.start()


def iterate_rpyc(port: int, count: int) -> Any:
    import rpyc

    with rpyc.connect("127.0.0.1", port) as connection:
        yield from connection.root.items(count)


def call_back_rpyc(port: int, count: int) -> Any:
    import rpyc

    with rpyc.connect("127.0.0.1", port) as connection:
        return connection.root.repeat(lambda number: number, count)


def serve_pyro() -> None:
    import Pyro5.api

    @Pyro5.api.expose
    class Service:
        def items(self, count: int) -> Any:
            yield from range(count)
    daemon = Pyro5.api.Daemon("127.0.0.1", 0)
    daemon.register(Service, "bench")
    say(int(daemon.locationStr.rpartition(":")[2]))
    daemon.requestLoop()


def iterate_pyro(port: int, count: int) -> Any:
    import Pyro5.api

    with Pyro5.api.Proxy(f"PYRO:bench@127.0.0.1:{port}") as proxy:
        yield from proxy.items(count)


def iterate_execnet(port: int, count: int) -> Any:
    import execnet

    # It starts its own process, which is not measured.
    gateway = execnet.makegateway(f"popen//python={sys.executable}")
    try:
        channel = gateway.remote_exec("for n in range(channel.receive()): channel.send(n)")
        channel.send(count)
        yield from channel
    finally:
        gateway.exit()


# ------------------------------------------------------------------------------------ measured

SERVERS: dict[str, Callable[[], None]] = {
    "app-net": serve_app_net, "gRPC": serve_grpc, "aiohttp JSON": serve_aiohttp,
    "asyncio alone": serve_asyncio, "RPyC": serve_rpyc, "Pyro5": serve_pyro}
CALLS: dict[str, Callable[[int], Any]] = {
    "app-net": call_app_net, "gRPC": call_grpc, "aiohttp JSON": call_aiohttp,
    "asyncio alone": call_asyncio}
STREAMS: dict[str, Callable[[int, int], Any]] = {
    "app-net": iterate_app_net, "gRPC": iterate_grpc, "RPyC": iterate_rpyc,
    "Pyro5": iterate_pyro, "execnet": iterate_execnet}
CALLBACKS_BY: dict[str, Callable[[int, int], Any]] = {
    "app-net": call_back_app_net, "RPyC": call_back_rpyc}


def say(port: int) -> None:
    print(port, flush=True)


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def awaited(at_once: int, count: int, begin: Callable[[int], Any], port: int) -> float:
    """Seconds for each of some calls."""
    async def main() -> float:
        manager = begin(port)
        async with contextlib.AsyncExitStack() as stack:
            call: Call = await stack.enter_async_context(manager) \
                if hasattr(manager, "__aenter__") else stack.enter_context(manager)
            await asyncio.gather(*[call(number) for number in range(at_once)])
            started = time.perf_counter()
            for _ in range(count // at_once):
                found = await asyncio.gather(*[call(number) for number in range(at_once)]) \
                    if at_once > 1 else [await call(0)]
                assert found == list(range(1, at_once + 1))
            return (time.perf_counter() - started) / (count // at_once * at_once)
    return asyncio.run(main())


def plain(port: int, count: int) -> float:
    """Seconds for each of some calls that are not awaited."""
    call = connected()[1].on(("127.0.0.1", port))
    call(0)
    started = time.perf_counter()
    for number in range(count):
        assert call(number) == number + 1
    return (time.perf_counter() - started) / count


def streamed(count: int, iterate: Callable[[int, int], Any], port: int) -> float:
    """Items a second, from the first one on."""
    items = iter(iterate(port, count))
    assert next(items) == 0
    started = time.perf_counter()
    assert sum(1 for _ in items) == count - 1
    return (count - 1) / (time.perf_counter() - started)


def called_back(count: int, call: Callable[[int, int], Any], port: int) -> float:
    """Seconds for each callback."""
    started = time.perf_counter()
    assert call(port, count) == sum(range(count))
    return (time.perf_counter() - started) / count


@contextlib.contextmanager
def servers() -> Iterator[tuple[dict[str, int], dict[str, str]]]:
    """The port of each system that starts, and why the others do not. execnet has no server."""
    ports, reasons, processes = {}, {}, []
    if importlib.util.find_spec("execnet") is None:
        reasons["execnet"] = "No module named 'execnet'"
    else:
        ports["execnet"] = 0
    try:
        for name in SERVERS:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.forms", "--serve", name], cwd=PROJECT,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            processes.append(process)
            line = process.stdout.readline()
            if line:
                ports[name] = int(line)
            else:
                reasons[name] = process.stderr.read().strip().splitlines()[-1]
        yield ports, reasons
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def run(rounds: int, share: float) -> Iterator[Result]:
    # Before net is imported, which reads it.
    os.environ["NET_HOST"] = "127.0.0.1"
    with servers() as (ports, reasons):
        def measured(result: Result, ways: dict[str, Callable[..., Any]],
                     sample: Callable[..., float], factor: float, **others: Any) -> Result:
            result.refusals.update({name: reasons[name] for name in ways if name in reasons})
            candidates = {name: functools.partial(sample, way, ports[name])
                          for name, way in ways.items() if name in ports}
            return interleave(result, {**candidates, **others}, rounds, factor)

        for at_once, most in AT_ONCE:
            count = max(at_once, int(most * share))
            title = f"{at_once:,} awaited calls at once, each" if at_once > 1 \
                else "one awaited call after the other"
            yield measured(
                Result(f"awaited-{at_once}", title, "µs", baseline="app-net"), CALLS,
                functools.partial(awaited, at_once, count), 1e6,
                **{"app-net, not awaited": functools.partial(plain, ports["app-net"], count)})
        count = max(100, int(ITEMS * share))
        yield measured(
            Result("stream", f"a stream of {count:,} items", "items/s", True, baseline="app-net"),
            STREAMS, functools.partial(streamed, count), 1)
        count = max(100, int(CALLBACKS * share))
        yield measured(
            Result("callback", "a callback", "µs", baseline="app-net"), CALLBACKS_BY,
            functools.partial(called_back, count), 1e6)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forms", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the calls and items")
    parser.add_argument("--serve", choices=list(SERVERS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        os.environ["NET_HOST"] = "127.0.0.1"
        SERVERS[options.serve]()
        return
    report.show(run(options.rounds, options.share))


if __name__ == "__main__":
    main(sys.argv[1:])
