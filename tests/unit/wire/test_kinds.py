"""Every class that JSON would bend: how it travels, and that it arrives as it was."""
from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import json
import os
import pathlib
import uuid
import weakref

import pytest

import net
from net.errors import ProtocolError, ValueNotSupported
from net.identity import make_id
from net.wire import kinds
from net.wire.values import pack, unpack
from each import each
from travel import as_result, assert_same

try:
    import zoneinfo
    BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
except Exception:  # no zone files on this machine, nor the tzdata package
    BERLIN = None

UTC = datetime.timezone.utc
PLUS_TWO = datetime.timezone(datetime.timedelta(hours=2))
NAMED = datetime.timezone(datetime.timedelta(hours=-5, minutes=-30, seconds=1, microseconds=2), "X")
PEER = net.PeerId(b"MTI3LjAuMC4xOjMwMTAgLT4gTm9uZQ==")


# What travels, and its documented form on the wire.
FORMS = [
    ((), '{"!tuple":[]}'),
    ((1, (2,)), '{"!tuple":[1,{"!tuple":[2]}]}'),
    (set(), '{"!set":[]}'),
    ({1}, '{"!set":[1]}'),
    (frozenset({"a"}), '{"!frozenset":["a"]}'),
    ({1: 2, "a": None}, '{"!dict":[1,2,"a",null]}'),
    ([{"!tuple": 1}, 1j], '[{"!dict":["!tuple",1]},{"!complex":[0.0,1.0]}]'),
    (collections.OrderedDict(b=1, a=2), '{"!ordered":["b",1,"a",2]}'),
    (collections.Counter("aab"), '{"!counter":["a",2,"b",1]}'),
    (collections.Counter({"a": -1, "b": 0}), '{"!counter":["a",-1,"b",0]}'),
    (collections.deque([1, 2]), '{"!deque":[null,1,2]}'),
    (collections.deque([1, 2], 0), '{"!deque":[0]}'),
    (collections.deque([1, 2], 2), '{"!deque":[2,1,2]}'),
    (range(5), '{"!range":[0,5,1]}'),
    (range(5, -5, -2), '{"!range":[5,-5,-2]}'),
    (1.5 - 2j, '{"!complex":[1.5,-2.0]}'),
    (2 ** 2048, '{"!int":"' + hex(2 ** 2048) + '"}'),
    (b"", '{"!bytes":""}'),
    (b"abc", '{"!bytes":"YWJj"}'),
    (bytearray(b"abc"), '{"!bytearray":"YWJj"}'),
    (memoryview(b"abc"), '{"!memoryview":"YWJj"}'),
    (datetime.datetime(2020, 2, 29, 1, 2, 3, 4, fold=1),
     '{"!datetime":[2020,2,29,1,2,3,4,1,null]}'),
    (datetime.datetime(1, 1, 1, tzinfo=UTC),
     '{"!datetime":[1,1,1,0,0,0,0,0,{"!timezone":[0,0,0]}]}'),
    (datetime.date(9999, 12, 31), '{"!date":[9999,12,31]}'),
    (datetime.time(23, 59, 59, 999999, tzinfo=PLUS_TWO, fold=1),
     '{"!time":[23,59,59,999999,1,{"!timezone":[0,7200,0]}]}'),
    (datetime.timedelta(-1, 2, 3), '{"!timedelta":[-1,2,3]}'),
    (datetime.timedelta.max, '{"!timedelta":[999999999,86399,999999]}'),
    (UTC, '{"!timezone":[0,0,0]}'),
    (NAMED, '{"!timezone":[-1,66600,999998,"X"]}'.replace("66600,999998", "66601,2")),
    (decimal.Decimal("-1.50E+10"), '{"!decimal":"-1.50E+10"}'),
    (fractions.Fraction(-3, 9), '{"!fraction":[-1,3]}'),
    (uuid.UUID(int=5), '{"!uuid":"00000000000000000000000000000005"}'),
    (pathlib.PurePosixPath("/a/ b"), '{"!path":["pure posix","/a/ b"]}'),
    (pathlib.PureWindowsPath("c:\\x"), '{"!path":["pure windows","c:\\\\x"]}'),
    (PEER, '{"!peer":["MTI3LjAuMC4xOjMwMTAgLT4gTm9uZQ=="]}'),
    (make_id(3010, "fd00::1"),
     '{"!peer":["W2ZkMDA6OjFdOjMwMTAgLT4gTm9uZQ=="]}'),
    (net.PeerId(bytes(PEER), {"hub": True}),
     '{"!peer":["MTI3LjAuMC4xOjMwMTAgLT4gTm9uZQ==",{"hub":true}]}'),
]


@each("value, text", FORMS, ids=lambda part: type(part).__name__
      if not isinstance(part, str) else "")
def test_each_kind_looks_as_documented_and_arrives_as_it_was(value, text):
    packed = pack(value, "result")
    assert (packed.text, packed.tagged) == (text, True)
    assert_same(unpack(text.encode(), True), value)
    json.loads(text)


def test_every_kind_is_tried_here():
    tried = {text[2:text.index('"', 2)] for _, text in FORMS if text.startswith('{"!')}
    assert {kind.name for kind in kinds.KINDS} <= tried
    assert set(kinds.PUT_TOGETHER) - tried == {"!str", "!value", "!array", "!scalar", "!zone",
                                               "!lent", "!library", "!columns"}


@each("value", [
    pathlib.Path("."), pathlib.Path("/"), pathlib.Path("a/../b"), pathlib.Path("\udcff"),
    pathlib.PurePosixPath(""), pathlib.PureWindowsPath("//host/share/x"), pathlib.Path.cwd(),
], ids=repr)
def test_paths_keep_their_class(value):
    assert_same(as_result(value), value)


def test_a_path_of_the_other_family_arrives_as_a_pure_one():
    foreign = "windows" if os.name == "posix" else "posix"
    found = unpack(json.dumps({"!path": [foreign, "a/b"]}).encode(), True)
    assert type(found) is getattr(pathlib, kinds.PATHS["pure " + foreign])


@each("text",
      ["0", "-0", "0.00", "-0E-7", "NaN", "-NaN", "sNaN", "NaN12", "Infinity",
       "-Infinity", "1E+999999", "1E-999999", "9" * 4000,
       "0." + "1" * 99])
def test_decimals_keep_sign_exponent_and_payload(text):
    value = decimal.Decimal(text)
    with decimal.localcontext() as context:
        context.prec = 3  # counts for calculations, not for what travels
        assert_same(as_result(value), value)


@each("zone", [
    UTC, PLUS_TWO, NAMED, datetime.timezone.min, datetime.timezone.max,
    datetime.timezone(datetime.timedelta(0), "Greenwich"), datetime.timezone(datetime.timedelta(0)),
    datetime.timezone(datetime.timedelta(hours=1), "UTC+01:00"),
    datetime.timezone(datetime.timedelta(hours=1), ""), BERLIN], ids=str)
def test_times_keep_their_zone_and_fold(zone):
    for fold in (0, 1):
        moment = datetime.datetime(2021, 10, 31, 2, 30, fold=fold, tzinfo=zone)
        arrived = as_result([moment, moment.timetz(), zone])
        assert_same(arrived, [moment, moment.timetz(), zone])
        assert arrived[0].utcoffset() == moment.utcoffset()
        assert arrived[0].isoformat() == moment.isoformat()


@pytest.mark.skipif(BERLIN is None, reason="no time zones here")
def test_a_zone_travels_by_name():
    assert pack(BERLIN, "result").text == '{"!zone":"Europe/Berlin"}'
    assert as_result(BERLIN) is BERLIN


@pytest.mark.skipif(BERLIN is None, reason="no time zones here")
def test_a_zone_is_loaded_once_however_often_it_comes():
    names = sorted(zoneinfo.available_timezones())[:30]
    zones = [weakref.ref(unpack(b'{"!zone":"%s"}' % name.encode(), True)) for name in names]
    assert None not in [zone() for zone in zones]


def test_what_looks_alike_stays_apart():
    value = [1, 1.0, True, (1,), [1], {1}, frozenset({1}), b"1", "1", bytearray(b"1"), 1 + 0j,
             decimal.Decimal(1), fractions.Fraction(1), range(1), {1: 1}, {"1": 1},
             collections.OrderedDict({1: 1}), collections.Counter({1: 1}), collections.deque([1])]
    assert_same(as_result(value), value)


def test_the_order_of_keys_stays():
    value = {3: 0, 1: 0, "z": 0, "a": 0, None: 0}
    assert list(as_result(value)) == list(value)
    ordered = collections.OrderedDict([("z", 1), ("a", 2)])
    assert list(as_result(ordered)) == ["z", "a"]


def test_keys_of_any_hashable_kind_travel():
    value = {(1, (2, b"x")): 1, frozenset({1}): 2, None: 3, 1.5: 4, uuid.UUID(int=1): 5,
             datetime.date(2020, 1, 1): 6, True: 7, b"k": 8, range(3): 9, float("nan"): 10}
    assert_same(as_result(value), value)


def test_a_range_may_be_made_of_booleans():
    assert_same(as_result(range(False, True)), range(0, 1))


def test_a_sliced_memoryview_travels_as_its_bytes():
    assert as_result(memoryview(b"abcdef")[::2]) == b"ace"
    assert as_result(memoryview(bytearray(10_000))[1:]).nbytes == 9999


def test_a_subclass_of_a_kind_does_not_lose_its_class_quietly():
    class Name(str):
        pass

    class Moment(datetime.datetime):
        pass

    class Map(dict):
        pass

    for value in (Name("x"), Moment(2020, 1, 1), Map(a=1), collections.UserDict(), True + 1j and
                  collections.ChainMap()):
        with pytest.raises(ValueNotSupported):
            as_result(value)


def test_why_a_class_cannot_travel_says_what_to_do():
    class Plain:
        pass

    Other = collections.namedtuple("Other", "a")
    for value, advice in [(Plain(), "Plain cannot travel"), (Other(1), "@net.value on both sides"),
                          (type("Int", (int,), {})(), "a plain int can")]:
        with pytest.raises(ValueNotSupported, match=advice):
            as_result(value)


def test_a_named_tuple_is_not_taken_for_a_tuple():
    with pytest.raises(ProtocolError):
        unpack(b'{"!tuple":{"a":1}}', True)


def test_the_zone_of_a_link_local_address_stays_on_its_host():
    value = net.PeerId(make_id(3010, "fe80::1%eth0", "render"), {"hub": True})
    arrived = as_result(value)
    assert arrived == make_id(3010, "fe80::1", "render") and arrived.info == value.info
