"""How deeply values may be nested, by the stack of the thread that reads or writes them.

Each level takes a part of the stack: in the parser and the encoder of JSON, in our own functions,
and when the interpreter frees the values. Threads may have stacks of 32 KiB, and a stack that
overflows ends the process.
"""
from __future__ import annotations

import sys
import threading

KIB = 2 ** 10

# Bytes of the stack that a level of the costliest containers takes; that a level of lists and dicts
# takes, which only the parser and the encoder go through; and that are left for what the thread
# does besides. Before Python 3.11 each call of a Python function takes some; from 3.14 on Python
# itself leaves the last 32 KiB alone.
LEVEL = 2304 if sys.version_info < (3, 11) else KIB if sys.version_info < (3, 14) else 1536
PLAIN_LEVEL = KIB // 2
BESIDES = (20 if sys.version_info < (3, 14) else 52) * KIB
# Where the system does not say, the usual default counts. Every default is 512 KiB or more, which
# bears the largest NET_MAX_DEPTH.
USUAL = 8 * KIB * KIB

# Bytes that are more than enough for a pthread_attr_t.
_ATTRIBUTES = 512


class _ThisThread(threading.local):
    room = 0


_this_thread = _ThisThread()


def levels_here(plain: bool = False) -> int:
    """Levels of containers that the stack of this thread certainly bears; at least one.

    :param plain: for lists and dicts alone.
    """
    if not _this_thread.room:
        _this_thread.room = max(LEVEL, _size_of_stack() - BESIDES)
    return _this_thread.room // (PLAIN_LEVEL if plain else LEVEL)


def _size_of_stack() -> int:
    if sys.platform == "linux":
        try:
            return _ask_system()
        except (ImportError, AttributeError, OSError):
            pass  # no ctypes, or another C library
    # The size for new threads, which counts for this one too. Asking for it sets it to 0.
    size = threading.stack_size()
    threading.stack_size(size)
    return size or USUAL


def _ask_system() -> int:
    import ctypes  # few values are nested so deeply that it matters

    library = ctypes.CDLL(None)
    attributes = ctypes.create_string_buffer(_ATTRIBUTES)
    start, size = ctypes.c_void_p(), ctypes.c_size_t()
    thread = ctypes.c_ulong(threading.get_ident())
    if library.pthread_getattr_np(thread, attributes):
        raise OSError("the system does not tell")
    try:
        library.pthread_attr_getstack(attributes, ctypes.byref(start), ctypes.byref(size))
    finally:
        library.pthread_attr_destroy(attributes)
    return size.value
