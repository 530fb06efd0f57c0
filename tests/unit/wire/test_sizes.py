"""Sizes of objects for a Python that does not tell them, held against those that CPython tells."""
from __future__ import annotations

import sys
from collections import deque
from typing import Any

import pytest

from net.wire.memory import _size_in_cpython
from each import each


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="this Python cannot tell")
@each("value", [
    "", "x" * 50, "\u20ac" * 50, "\U0001f600" * 50, b"", b"x" * 50, bytearray(50), 0, 2 ** 40,
    2 ** 5000, 1.5, [1] * 30, (1,) * 30, deque([1] * 1000), {}, dict.fromkeys(range(40)),
    dict.fromkeys(range(1000)), set(), set(range(40)), frozenset(range(1000)),
])
def test_the_size_of_an_object_is_near_what_cpython_tells(value: Any):
    assert sys.getsizeof(value) / 2 < _size_in_cpython(value) < 2 * sys.getsizeof(value)
