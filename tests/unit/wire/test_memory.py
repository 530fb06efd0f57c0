"""The memory that the values of a message take, as estimated from its text and weighed as made."""
from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import gc
import itertools
import pathlib
import random
import uuid
from typing import Any, Callable, Dict, List, Tuple

import pytest

import net
import travel
from memory import Peak, tracemalloc
from net.run.lending import Borrower
from net.wire import kinds, memory, pieces
from net.wire.limits import Limits
from net.wire.memory import estimate
from net.wire.values import pack, unpack
from each import each

numpy = pytest.importorskip("numpy")
zoneinfo = pytest.importorskip("zoneinfo")

pytestmark = pytest.mark.skipif(tracemalloc is None, reason="this Python cannot tell")

PEER = net.PeerId(b"MTI3LjAuMC4xOjMwMTAgLT4gTm9uZQ==")
SOURCE = random.Random(1)
LIMITS = Limits(buffers=2 ** 30)
# Bytes of text. What a message costs besides its values counts a little in the first, less in the
# second, and not at all in the third.
SIZES = (6_000, 15_000, 60_000)

#: The number of a value -> the value.
CASES: Dict[str, Callable[[int], Any]] = {
    "small ints": lambda n: n % 100, "ints": lambda n: 1000 + n, "long ints": lambda n: 2 ** 60 + n,
    "very long ints": lambda n: 10 ** 600 + n, "negative": lambda n: -n - 6,
    "floats": lambda n: SOURCE.random(), "short floats": lambda n: 1.5, "bools": lambda n: True,
    "none": lambda n: None, "characters": lambda n: "a", "texts": lambda n: f"abc{n}",
    "long texts": lambda n: "x" * 500 + str(n), "latin": lambda n: f"é{n}",
    "wide": lambda n: f"€{n}", "astral": lambda n: f"\U0001f600{n}",
    "long astral": lambda n: "\U0001f600" + "x" * 300 + str(n), "quotes": lambda n: '"' * 20,
    "long latin": lambda n: "é" * 300 + str(n), "lines": lambda n: "\n" * 20 + str(n),
    "zeros": lambda n: "\0" * 20 + str(n), "empty texts": lambda n: "",
    "empty lists": lambda n: [], "lists": lambda n: [1], "lists of 8": lambda n: [1] * 8,
    "lists of 100": lambda n: [1] * 100, "lists in lists": lambda n: [[[]]],
    "lists of ints": lambda n: [1000 + n] * 5, "empty dicts": lambda n: {},
    "dicts": lambda n: {"a": 1}, "dicts of 5": lambda n: dict.fromkeys("abcde", 1),
    "dicts of 6": lambda n: dict.fromkeys("abcdef", 1),
    "dicts of 20": lambda n: {f"k{key}": key for key in range(20)},
    "keys": lambda n: {f"key{n}": 1}, "long keys": lambda n: {"k" * 40: 1, "l" * 40: 1},
    "latin keys": lambda n: {"clé": 1, "é": 1},
    "records": lambda n: {"id": n, "name": f"user{n}", "tags": ["a", "bb"], "score": n * 1.5},
    "empty tuples": lambda n: (), "tuples": lambda n: (1,), "tuples of 20": lambda n: (1,) * 20,
    "tuples of texts": lambda n: (f"a{n}", "b"), "empty sets": lambda n: set(),
    "sets": lambda n: {1, 2, 3}, "sets of 5": lambda n: set(range(5)),
    "sets of 77": lambda n: set(range(77)), "sets of 78": lambda n: set(range(78)),
    "frozensets": lambda n: frozenset({n}), "empty deques": lambda n: collections.deque(),
    "deques": lambda n: collections.deque([1, 2, 3]),
    "deques of 100": lambda n: collections.deque(range(100)),
    "empty ordered": lambda n: collections.OrderedDict(),
    "ordered": lambda n: collections.OrderedDict(a=1, b=2, c=3),
    "empty counters": lambda n: collections.Counter(), "counters": lambda n: collections.Counter(
        "aab"), "dicts of ints": lambda n: {1: 2}, "dicts of 5 ints": lambda n: dict.fromkeys(
        range(5), 1), "dicts of 6 ints": lambda n: dict.fromkeys(range(6), 1),
    "ranges": lambda n: range(n + 300), "short ranges": lambda n: range(3),
    "complex": lambda n: complex(1, n), "empty bytes": lambda n: b"",
    "bytes": lambda n: b"abc%d" % n, "long bytes": lambda n: bytes(1000),
    "bytearrays": lambda n: bytearray(b"abc"),
    "empty bytearrays": lambda n: bytearray(), "memoryviews": lambda n: memoryview(b"abc"),
    "datetimes": lambda n: datetime.datetime(2020, 1, 1, 1, 2, 3),
    "datetimes of UTC": lambda n: datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
    "datetimes of zones": lambda n: datetime.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
    "datetimes elsewhere": lambda n: datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone(
        datetime.timedelta(hours=2))), "dates": lambda n: datetime.date(2020, 1, 1 + n % 28),
    "times": lambda n: datetime.time(1, 2, 3), "timedeltas": lambda n: datetime.timedelta(n, n, n),
    "timezones": lambda n: datetime.timezone(datetime.timedelta(0, 3600 + n % 1000)),
    "zones": lambda n: zoneinfo.ZoneInfo("UTC"), "decimals": lambda n: decimal.Decimal(n) / 8,
    "long decimals": lambda n: decimal.Decimal("1" * 200),
    "fractions": lambda n: fractions.Fraction(n, 7),
    "long fractions": lambda n: fractions.Fraction(10 ** 30 + n, 7 ** 30),
    "uuids": lambda n: uuid.UUID(int=n * 2 ** 64), "peers": lambda n: PEER,
    "peers with facts": lambda n: net.PeerId(PEER, {"hub": True}),
    "hexadecimal": lambda n: 2 ** 2048 + n, "paths": lambda n: pathlib.PurePosixPath(f"/a/b{n}"),
    "short paths": lambda n: pathlib.Path("a"),
    "windows": lambda n: pathlib.PureWindowsPath(f"c:\\x\\y{n}"),
    "dataclasses": lambda n: travel.Point(n + 1000, n + 1000), "frozen": lambda n: travel.Frozen(1),
    "named tuples": lambda n: travel.Pair(1, 2), "enums": lambda n: travel.Color.RED,
    "flags": lambda n: travel.Access.READ, "buffers": lambda n: bytes(5000),
    "texts beside": lambda n: "x" * 5000, "wide beside": lambda n: "€" * 5000,
    "astral beside": lambda n: "\U0001f600" * 5000, "mixed": lambda n: "\U0001f600" + "x" * 5000,
    "arrays": lambda n: numpy.array([1]), "arrays of 100": lambda n: numpy.zeros(100),
    "arrays beside": lambda n: numpy.zeros(1000), "scalars": lambda n: numpy.float64(1.5),
    "bytes of numpy": lambda n: numpy.int8(1), "texts of numpy": lambda n: numpy.str_("abc"),
    "records with times": lambda n: {"id": n + 1000, "at": datetime.datetime(2020, 1, 1, 1, 2, 3)},
    "numbers and tuples": lambda n: (n + 1000, n % 2) if n % 3 else n + 1000,
    "structures": lambda n: numpy.zeros(2, "i4,f8"),
}


@pytest.fixture(scope="module", autouse=True)
def only_what_is_new() -> None:
    """What was there before is not looked through whenever garbage is collected here."""
    gc.collect()
    if hasattr(gc, "freeze"):  # PyPy has none
        gc.freeze()


def many(make: Callable[[int], Any], most: int) -> List[Any]:
    one = pack([make(1)], "x", LIMITS)
    size = len(one.text) + sum(map(len, one.buffers)) // 100
    return [make(number) for number in range(max(1, most // size))]


@pytest.mark.parametrize("name", CASES)
def test_what_is_counted_is_right_within_a_factor_of_one_and_a_half(name, monkeypatch):
    for size in SIZES:
        values = many(CASES[name], size)
        counted, left, taken = cost_of(values)
        if taken / 1.5 < counted and left < taken * 1.5:
            break
    assert taken / 1.5 < counted and left < taken * 1.5
    if counted >= taken * 1.5:  # what is tagged becomes less than its text says
        monkeypatch.setattr(pieces, "PIECE", 16 * 1024)
        counted, left, taken = cost_of(many(CASES[name], SIZES[1]) * 8)
    assert taken / 1.5 < counted < taken * 1.5


def cost_of(values: List[Any]) -> Tuple[int, int, int]:
    """Bytes that are counted for a message at most, and when it was read; and that it takes."""
    packed = pack(values, "x", LIMITS)
    text = packed.text.encode("utf-8", "surrogatepass")
    charged: List[int] = []
    # What is loaded or made once is no cost of a message.
    unpack(text, packed.tagged, list(map(bytes, packed.buffers)), charge=charged.append)
    sent = sum(map(len, packed.buffers))
    counted, taken = max(itertools.accumulate(charged)) + sent, taken_by(text, packed)
    if taken / 1.5 >= counted:
        # Tables of Python's own may have grown meanwhile, such as that of interned texts.
        taken = taken_by(text, packed)
    return counted, sum(charged) + sent, taken


def taken_by(text: bytes, packed: Any) -> int:
    """Bytes of memory that reading a message takes at most, with what it is made of."""
    gc.collect()
    with Peak() as peak:
        buffers = [bytes(bytearray(buffer)) for buffer in packed.buffers]  # they have arrived
        arrived = tracemalloc.get_traced_memory()[0]
        kept = unpack(text, packed.tagged, buffers)
    assert kept
    # What becomes of buffers takes their place.
    return peak.bytes - arrived + sum(map(len, packed.buffers))


def test_every_kind_is_among_the_cases():
    texts = [pack([make(1)], "x", LIMITS).text for make in CASES.values()]
    kinds_here = {name for name in kinds.PUT_TOGETHER if any(f'"{name}"' in text for text in texts)}
    assert kinds_here == set(kinds.PUT_TOGETHER) - {"!lent", "!library", "!columns"}


@each("kind, name", [("function", "f{}"), ("function", ""), ("iterator", "i{}")])
def test_stand_ins_for_what_is_lent_are_counted(kind, name):
    borrower = Borrower(None, None, None, LIMITS)  # type: ignore[arg-type]
    text = ("[" + ",".join([f'{{"!lent":[{number},"{kind}","{name.format(number)}"]}}'
                            for number in range(2000)]) + "]").encode()
    charged: List[int] = []
    unpack(text, True, borrow=borrower.borrow, charge=charged.append)
    gc.collect()
    with Peak() as peak:
        kept = unpack(text, True, borrow=borrower.borrow)
    assert kept
    assert peak.bytes / 1.5 < max(itertools.accumulate(charged)) < peak.bytes * 1.5


@each("text", [
    b"", b"[", b'"', b'"abc', b'["abc', b'"\\', b"{", b'{"a', b'{"a":', b"\xff", b'"\xe2\x82',
    b'"' * 99_999, b"\\" * 200_000, b'"' + b"\\u" * 70_000, b"\1" * 100_000, b'"\1' * 50_000,
    b"[" * 100_000, b"{" * 100_000, b":" * 100_000, b"}]," * 40_000, b'":"' * 40_000,
    "\u20ac".encode() * 50_000, b'["\\u20ac' * 20_000, b'{"!set":' * 20_000],
    ids=lambda text: repr(text[:8]))
def test_a_text_that_is_no_json_has_an_estimate_too(text):
    for size in (estimate(text), memory.estimate_piece(text, 2 ** 24)):
        assert 0 <= size < 1000 * len(text) + 1000


def test_an_estimate_does_not_depend_on_where_pieces_are_cut():
    unit = b'{"id":1234,"name":"some user","tags":["a","bb"],"text":"a\\"b\\\\","more":[1.5,null]},'
    rates = [estimate(b"[" + unit * count + b"1]") / count for count in (500, 5000, 20_000)]
    assert max(rates) < 1.2 * min(rates)


@pytest.mark.parametrize("text", [
    b"[" + b'{"key":[]},' * 50_000 + b'"' + b"x" * 500_000 + b'"]',
    b'["' + b"\\\\" * 250_001 + b'",' + b'"a",[],' * 50_000 + b"1]",
    b"[" + b"1234," * 125_000 + b"1]", b'{"a":["\\"' + b'"],"b":[" ' * 75_000 + b'"]}',
    b'["' + b"\\u0000" * 125_000 + b'"]', b'["' + b'\\u0000\\\\","' * 50_000 + b'"]'],
    ids=lambda text: repr(text[:10]))
def test_a_part_of_a_long_text_tells_what_the_whole_takes(text, monkeypatch):
    monkeypatch.setattr(memory, "LEAST", 16)
    looked_at = []
    add = memory._Counts.add
    monkeypatch.setattr(memory._Counts, "add",
                        lambda *arguments: looked_at.append(1) or add(*arguments))
    some = estimate(text)
    assert len(looked_at) < len(text) / memory.PIECE * 0.6
    monkeypatch.setattr(memory, "MOST", 1)
    assert some / 1.2 < estimate(text) < some * 1.2


def test_what_is_charged_is_reported_on_the_way_and_ends_the_reading_if_it_raises():
    text = b"[" + b",".join([b'{"!set":[]}'] * 5000) + b"]"
    told: List[int] = []

    def charge(size: int) -> None:
        told.append(size)
        if len(told) == 3:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        unpack(text, True, charge=charge)
    assert len(told) == 3 and sum(told) < 300_000
    told.clear()
    text = b'{"!set":[]}'
    unpack(text, True, charge=told.append)
    size = memory.size_of_reading(text) + memory.estimate_piece(text, len(text))
    # And what the garbage collection keeps of it.
    assert sum(told) == size + set().__sizeof__() + 16
