"""An application for the tests of ``app-net call``."""
from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import net

go_on = threading.Event()


@net.connect("studio.multiply")
def multiply(a, b=2):
    return a * b


@net.connect("studio.echo")
def echo(*args, **kwargs):
    return args, kwargs


@net.connect("studio.count")
def count(n):
    for number in range(n):
        yield {"number": number}
        go_on.wait(30)


@net.connect("studio.fail")
def fail(text):
    raise ValueError(text)


@net.connect("studio.fail_in.coroutine")
async def fail_in_coroutine(text):
    raise ValueError(text)


@net.connect("studio.fail_in.stream")
def fail_in_stream(text):
    yield 1
    raise ValueError(text)


@net.connect("studio.fail_in.async_stream")
async def fail_in_async_stream(text):
    yield 1
    raise ValueError(text)


@net.connect("studio.fail_in.executor", executor=ThreadPoolExecutor(1))
def fail_in_executor(text):
    raise ValueError(text)


@net.connect("studio.fail_in.executed_stream", executor=ThreadPoolExecutor(1))
def fail_in_executed_stream(text):
    yield 1
    raise ValueError(text)


@net.connect("studio.raw")
def raw():
    return b"\xff\x00"


@net.connect("studio.paint")
def paint():
    return "\x1b[31mred\nnext"


@net.connect("studio.none")
async def none():
    return None


@net.connect("studio.where")
def where():
    return net.Peer().port


@net.connect("other.count")
def other():
    return 0
