"""What strangers may send: it costs little, unrolls to nothing, and is refused by a typed error."""
from __future__ import annotations

import contextlib
import decimal
import enum
import fractions
import gc
import importlib.abc
import itertools
import json
import re
import signal
import sys
import time
from typing import Any, Iterator, List, Optional, Tuple

import pytest

import travel
from intruders import BUFFER, INTRUDERS, SAME
from net.errors import ProtocolError, ValueNotSupported
from net.run.lending import Borrower
from net.wire import arrays, kinds, registered, values
from net.wire.limits import Limits
from net.wire.values import unpack
from each import each
from memory import Peak
from steps import counts_steps, steps_of
from travel import as_result
from times import patience

numpy = pytest.importorskip("numpy")

# Every place of a tagged object where one certain type of JSON is due.
POSITIONS = [
    *[f'{{"!{name}":@}}' for name in (
        "tuple", "set", "frozenset", "deque", "ordered", "counter", "range", "complex", "bytes",
        "bytearray", "memoryview", "datetime", "date", "time", "timedelta", "timezone", "decimal",
        "fraction", "uuid", "peer", "dict", "int", "str", "value", "path", "array", "scalar",
        "zone", "lent", "columns")],
    '{"!columns":[@,["any",[],[1]]]}', '{"!columns":["",@]}', '{"!columns":["",[@,[],[1]]]}',
    '{"!columns":["",["any",@,[1]]]}', '{"!columns":["",["tuple",[],@]]}',
    '{"!columns":["",["dict",[@],[1]]]}', '{"!columns":["",["value",[@],[1]]]}',
    '{"!columns":["",["value",["travel.Frozen",@],[1]]]}', '{"!columns":["",["datetime",[],[@]]]}',
    '{"!lent":[@,"function","f"]}', '{"!lent":[0,@,"f"]}', '{"!lent":[0,"iterator",@]}',
    '{"!deque":[@,1]}', '{"!range":[@,2,1]}', '{"!range":[1,@,1]}', '{"!range":[1,2,@]}',
    '{"!complex":[@,1.0]}', '{"!complex":[1.0,@]}', '{"!date":[@]}', '{"!date":[@,1,1]}',
    '{"!datetime":[@]}', '{"!datetime":[@,1]}', '{"!datetime":[@,null]}',
    *[f'{{"!datetime":[{",".join(["1"] * at + ["@"] + ["1"] * (7 - at))},null]}}'
      for at in range(8)],
    '{"!datetime":[2020,1,1,0,0,0,0,0,@]}', '{"!time":[@]}', '{"!time":[@,1]}',
    '{"!time":[@,0,0,0,0,null]}', '{"!time":[0,0,0,0,0,@]}', '{"!timedelta":[@,1,1]}',
    '{"!timezone":[0,@,0]}', '{"!timezone":[0,0,0,@]}', '{"!fraction":[@,1]}',
    '{"!fraction":[1,@]}', '{"!peer":[@]}', '{"!peer":["MTI3LjAuMC4xOjMwMTAgLT4gTm9uZQ==",@]}',
    '{"!value":{"class":@}}', '{"!value":{"class":"travel.Color","name":@}}',
    '{"!value":{"class":"travel.Access","value":@}}', '{"!path":[@,"x"]}',
    '{"!path":["pure posix",@]}', '{"!array":[@,[1],"C","AQAAAA=="]}',
    '{"!array":["<i4",@,"C",""]}', '{"!array":["<i4",[@],"C",""]}',
    '{"!array":["<i4",[1],@,"AQAAAA=="]}', '{"!array":["<i4",[1],"C",@]}',
    '{"!array":[[@,false,[["a",0,"<i4",[]]]],[1],"C","AQAAAA=="]}',
    '{"!array":[[4,@,[["a",0,"<i4",[]]]],[1],"C","AQAAAA=="]}',
    '{"!array":[[4,false,@],[1],"C","AQAAAA=="]}', '{"!array":[[4,false,[@]],[1],"C","AQAAAA=="]}',
    *['{"!array":[[4,false,[[' + ",".join(
        "@" if place == at else part for place, part in enumerate(
            ('"a"', "0", '"<i4"', "[]", '"title"'))) + ']]],[1],"C","AQAAAA=="]}'
      for at in range(5)],
    '{"!array":[[4,false,[["a",0,"<i4",[@]]]],[1],"C","AQAAAA=="]}',
    '{"!scalar":[@,"AQAAAA=="]}', '{"!scalar":["<i4",@]}',
]

lent_to = Borrower(None, None, None, Limits()).borrow  # type: ignore[arg-type]


def outcome(text: str) -> Optional[Any]:
    try:
        return unpack(text.encode(), True, [BUFFER], borrow=lent_to)
    except (ProtocolError, ValueNotSupported):
        return None


def test_every_kind_intrudes():
    # What needs a library that may not be there is in test_libraries.
    assert {*INTRUDERS, "!library"} == set(kinds.PUT_TOGETHER)
    for text in INTRUDERS.values():
        assert outcome(text) is not None, text


@each("position", POSITIONS)
def test_where_a_list_a_number_or_a_text_is_due_no_other_kind_is_taken(position):
    """A range unrolls to any size: 100 bytes once took gigabytes."""
    assert outcome('{"!zone":"UTC"}')  # what is loaded once is no cost of a message
    for name, intruder in INTRUDERS.items():
        started = time.thread_time()
        with Peak() as peak:
            made = outcome(position.replace("@", intruder))
        assert peak.bytes < 200_000 and time.thread_time() - started < patience(1), name
        zone = name in ("!timezone", "!zone") and position.endswith((",0,@]}", ":@]}"))
        assert made is None or name in SAME or zone, (name, made)


@each("position", POSITIONS)
@each("content", ["null", "true", "-1", "1e999", "NaN", "1" + "0" * 600, '""',
                  '"\\u0000"', "[]", "[[]]", "{}", '{"a":{"b":1}}'])
def test_where_one_type_of_json_is_due_another_is_refused_or_harmless(position, content):
    made = outcome(position.replace("@", content))
    if made is not None:
        repr(made)


# ------------------------------------------------------------------------------ what is rebuilt


@each("text", [
    '{"!datetime":[{"!bytes":"B+QBAQAAAAAAAA=="}]}', '{"!date":[{"!bytes":"B+QBAQ=="}]}',
    '{"!time":[{"!bytes":"AAAAAAAA"}]}', '{"!date":[0,1,1]}', '{"!date":[2020,1,255]}',
    '{"!datetime":[2020,1,1,255,0,0,0,0,null]}', '{"!datetime":[2020,1,1,0,0,0,0,2,null]}',
    '{"!time":[0,0,0,1000000,0,null]}', '{"!timezone":[1,0,0]}', '{"!timezone":[-1,0,0]}',
])
def test_dates_and_times_outside_of_their_range_are_refused(text):
    """Bytes would be taken for the state of a pickled date, which nobody checks."""
    with pytest.raises(ProtocolError):
        unpack(text.encode(), True)


@each("described", [
    '["<U1",[1],"C","////fw=="]', '[">U1",[1],"C","fwAAAA=="]', '["?",[1],"C","gA=="]',
    '[[8,false,[["a",0,"<U1",[2]]]],[1],"C","AAAAAP///38="]',
    '[[2,false,[["a",0,"?",[]],["b",1,[1,false,[["c",0,"?",[]]]],[]]]],[1],"C","AQI="]',
])
def test_arrays_of_what_numpy_never_makes_are_refused(described):
    """numpy would make texts of characters that do not exist, which Python cannot bear."""
    with pytest.raises(ProtocolError, match="not a"):
        unpack(b'{"!array":' + described.encode() + b"}", True)


def test_fields_that_lie_over_each_other_without_end_are_refused():
    fields = ",".join(f'["f{number}",0,"<U1",[250]]' for number in range(900))
    with pytest.raises(ProtocolError, match="same place"):
        unpack(f'{{"!array":[[1000,false,[{fields}]],[0],"C",""]}}'.encode(), True)


def test_a_type_of_numpy_data_is_made_once_in_a_message(monkeypatch):
    made, make = [], arrays._checked_dtype
    monkeypatch.setattr(arrays, "_checked_dtype",
                        lambda numpy, form: made.append(form) or make(numpy, form))
    one = '{"!scalar":[[2,false,[["a",0,"<i1",[2]]]],"AQI="]}'
    other = one.replace('"a"', '"b"')
    found = unpack(f"[{','.join([one, other, one] * 100)}]".encode(), True)
    assert len(found) == 300 and len(made) == 2
    assert [value["a"].tolist() for value in found[::3]] == [[1, 2]] * 100


@counts_steps
def test_a_description_of_numpy_data_that_came_before_is_not_gone_through_again():
    """That took nine tenths of the time."""
    def steps(described: str, count: int) -> int:
        one = f'{{"!array":[{described},[0],"C",""]}}'
        return steps_of(lambda: unpack(f"[{','.join([one] * count)}]".encode(), True, charge=id))

    within = '[9,false,[["a",0,' * 30 + '"<i4"' + ",[]]]]" * 30
    steps(within, 1), steps('"<i4"', 1)  # what is loaded once
    further, usual = (steps(kind, 12) - steps(kind, 2) for kind in (within, '"<i4"'))
    assert further < 2 * usual  # its text is longer to look at, too


def test_more_types_of_numpy_data_than_can_be_made_in_time_are_refused():
    """Making them took over ten times as long as all else for their size."""
    def types(count: int) -> bytes:
        return ("[%s]" % ",".join(
            f'{{"!scalar":[[1,false,[["f{number}",0,"b",[]]]],"AA=="]}}'
            for number in range(count))).encode()

    assert len(unpack(types(2000), True)) == 2000
    with pytest.raises(ValueNotSupported, match="more types of numpy data arrived than can be"):
        unpack(types(arrays.MAX_FIELDS_IN_ALL), True)


def test_a_time_zone_is_looked_up_only_if_there_is_one_of_that_name(monkeypatch):
    looked_up: List[str] = []

    class Watching(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: Any, target: Any = None) -> None:
            looked_up.append(name)

    unpack(b'{"!zone":"UTC"}', True)
    monkeypatch.setattr(sys, "meta_path", [Watching(), *sys.meta_path])
    for name in ("Mars/Phobos", "a/" * 3000 + "a", "../../etc/passwd", "/etc/passwd", "", "UTC\0",
                 "os/path", "\ud800"):
        with pytest.raises(ValueNotSupported, match="time zone .* arrived, but is not known"):
            unpack(json.dumps({"!zone": name}).encode(), True)
    assert looked_up == []


# ----------------------------------------------------------------------- nothing but our errors


@each("text", [
    '{"!path":[{"!int":"0x1' + "0" * 5000 + '"},"x"]}', '{"!value":{"class":{"!int":"0x1' +
    "0" * 5000 + '"}}}', '{"!' + "x" * 5000 + '":1}', '{"!\\ud800":1}', '{"!zone":"\\ud800"}',
    '{"!date":[{"!int":"0x1' + "0" * 5000 + '"},1,1]}', '{"!uuid":"\\ud800"}',
    '{"!peer":["\\ud800"]}', '{"!path":["pure posix","\\u0000"]}', '{"!int":"0x_1"}',
    '{"!decimal":"\u0661"}', '{"!value":{"class":"travel.Point","\\ud800":1}}',
])
def test_what_no_text_can_be_made_of_is_refused_like_all_else(text):
    try:
        unpack(text.encode(), True)
    except (ProtocolError, ValueNotSupported) as problem:
        assert len(str(problem)) < 1000


@pytest.mark.parametrize("digits", ["1E+99999999999999999999", "1E-99999999999999999999",
                                    "NaN" + "7" * 10, "1E+1000000000000000000"])
def test_a_decimal_beyond_what_there_is_is_refused_whatever_the_context(digits):
    text = f'{{"!decimal":"{digits}"}}'.encode()
    for traps in ([decimal.InvalidOperation], []):
        with decimal.localcontext(decimal.Context(traps=traps)):
            try:
                made = unpack(text, True)
            except ProtocolError:
                assert "E" in digits
            else:
                assert made.is_nan() is ("NaN" in digits)


class Alarm(Exception):
    """An application's own, raised by its signal handler."""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no such timers here")
@pytest.mark.parametrize("error", [Alarm("time is up"), ValueError("time is up"),
                                   TimeoutError("time is up"), KeyboardInterrupt()], ids=repr)
def test_what_a_signal_handler_raises_is_never_taken_for_a_broken_message(error):
    def handler(number: int, frame: Any) -> None:
        raise error

    text = ("[" + ",".join(['{"!tuple":[1]}'] * 100_000) + "]").encode()
    # Not SIGALRM, which pytest-timeout has.
    before = signal.signal(signal.SIGVTALRM, handler)
    gc.disable()  # a callback of hypothesis within a collection would swallow it
    try:
        with pytest.raises(type(error)) as caught:
            for _ in range(20):  # where Python can but print what a handler raises, it is lost
                signal.setitimer(signal.ITIMER_VIRTUAL, 0.01)
                unpack(text, True)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        gc.enable()
    assert caught.value is error


@each("kind", ['{"!set":[@]}', '{"!frozenset":[@]}', '{"!dict":[@,1]}', '{"!ordered":[@,1]}',
               '{"!counter":[@,1]}', '{"!tuple":[{"!set":[1,{"!tuple":[@]}]}]}'])
@each("part", ["[]", "{}", '{"!set":[]}', '{"!decimal":"sNaN"}', '{"!array":["b",[0],"C",""]}',
               '{"!value":{"class":"travel.Frozen","name":[]}}'])
def test_a_dataclass_whose_parts_have_no_hash_is_no_key(kind, part):
    one = f'{{"!value":{{"class":"travel.Frozen","name":{part}}}}}'
    with pytest.raises(ProtocolError, match="cannot be read: TypeError"):
        unpack(kind.replace("@", one).encode(), True)


def test_what_a_key_of_an_application_raises_is_its_own():
    class Key:
        pass

    with pytest.MonkeyPatch.context() as patch:
        def fail(self: Any) -> int:
            raise Alarm
        patch.setattr(travel.Frozen, "__hash__", fail)
        with pytest.raises(Alarm):
            unpack(b'{"!set":[{"!value":{"class":"travel.Frozen","name":1}}]}', True)


def test_a_stack_that_is_nearly_full_is_an_error_that_says_so():
    def deeper(left: int) -> Any:
        return deeper(left - 1) if left else unpack(b"[" * 90 + b"]" * 90)

    caught = None
    deeper(sys.getrecursionlimit() // 2)
    for left in range(sys.getrecursionlimit() // 2, sys.getrecursionlimit()):
        try:
            deeper(left)
        except ValueNotSupported as problem:
            caught = problem
            break
        except RecursionError:
            break
    # Later ones have a limit of its own for C, and PyPy has none but the stack.
    if sys.implementation.name == "cpython" and sys.version_info < (3, 12):
        assert caught is not None and "recursion limit" in str(caught)


# ------------------------------------------------------------------------ what a peer may lack


def paths() -> Iterator[Tuple[str, str]]:
    gone = '{"!value":{"class":"app.Gone"}}'
    yield gone, "result"
    yield f"[1,[{gone}]]", "result[1][0]"
    yield f'{{"a":{{"b":[{gone}]}}}}', "result['a']['b'][0]"
    yield f'[{{"!tuple":[1,{gone}]}}]', "result[0][1]"
    yield f'{{"!dict":[1,2,"k",{gone}]}}', "result['k']"
    yield f'{{"!dict":[{gone},2]}}', "result[...]"
    yield f'{{"!dict":[{{"!tuple":[]}},{gone}]}}', "result[...]"
    yield f'{{"!ordered":[[1],2,[2],{gone}]}}', "result[[2]]"
    yield f'{{"!deque":[null,1,{gone}]}}', "result[1]"
    yield f'{{"!frozenset":[{gone}]}}', "result[0]"
    yield f'{{"!value":{{"class":"travel.Point","x":[{{}},{gone}],"y":1}}}}', "result.x[1]"
    yield f'{{"!peer":["MTI3LjAuMC4xOjMwMTAgLT4gTm9uZQ==",{{"k":{gone}}}]}}', "result['k']"
    yield f'{{"{"k" * 200}":{gone}}}', "result['" + "k" * 36 + "...]"
    yield "[" * 60 + gone + "]" * 60, "result" + "[0]" * 38 + "..."


@each("text, path", list(paths()))
def test_what_is_lacking_here_says_where_it_was(text, path):
    with pytest.raises(ValueNotSupported) as caught:
        unpack(text.encode(), True, path="result", side="in this process")
    assert caught.value.path == path
    assert caught.value.reason == \
        "app.Gone arrived, but is not registered with @net.value in this process"


@counts_steps
def test_to_say_where_something_is_lacking_the_message_is_not_read_again():
    """It took up to three times what reading the message had taken."""
    def steps(zone: str) -> int:
        many = ",".join(['{"!tuple":[]}'] * 1000)
        text = f'[{many},{{"!zone":"{zone}"}}]'.encode()
        return steps_of(lambda: outcome_of(text))

    def outcome_of(text: bytes) -> None:
        with contextlib.suppress(ValueNotSupported):
            unpack(text, True)

    steps("UTC"), steps("Mars/Phobos")  # what is found once
    assert steps("Mars/Phobos") < 1.6 * steps("UTC")


def test_what_follows_something_lacking_stays_as_it_came_and_is_counted():
    gone, told = '{"!value":{"class":"app.Gone"}}', []
    many = ",".join(['{"!date":[2020,1,1]}'] * 20_000)
    with pytest.raises(ValueNotSupported, match=r"^result\[0\]: "):
        unpack(f"[{gone},{many}]".encode(), True, path="result", charge=told.append)
    assert sum(told) > 20_000 * sys.getsizeof([1, 2, 3])


@each("key, step", [
    ('{"!value":{"class":"travel.Frozen","name":1}}', "[...]"), ("1.5", "[1.5]"),
    ('{"!int":"0x1' + "0" * 5000 + '"}', "[...]"), ("[1,[2]]", "[...]"), ('"a"', "['a']"),
])
def test_the_way_to_what_is_lacking_runs_no_code_of_an_application(key, step, monkeypatch):
    monkeypatch.setattr(travel.Frozen, "__repr__", lambda self: 1 / 0)
    with pytest.raises(ValueNotSupported) as caught:
        unpack(f'{{"!dict":[{key},{{"!zone":"Mars"}}]}}'.encode(), True, path="result")
    assert caught.value.path == "result" + step


def test_in_a_call_the_way_begins_with_the_name_of_the_argument():
    text = b'{"tag":"eA==","args":[1,{"x":%s}],"kwargs":{"key":[%s]}}'
    gone = b'{"!value":{"class":"app.Gone"}}'
    for parts, path in (((gone, b"1"), "args[1]['x']"), ((b"1", gone), "kwargs['key'][0]")):
        with pytest.raises(ValueNotSupported) as caught:
            unpack(text % parts, True, side="at the peer")
        assert caught.value.path == path
        assert "at the peer" in str(caught.value)


@each("text, reason", [
    ('{"!value":{"class":"travel.Color","name":"GREEN"}}',
     "travel.Color.GREEN arrived, but there is no such member in this process"),
    ('{"!value":{"class":"travel.Point","x":1,"z":2}}',
     "travel.Point has the parts x, y in this process, but x, z arrived"),
    ('{"!zone":"Mars/Phobos"}',
     "the time zone 'Mars/Phobos' arrived, but is not known in this process; the package tzdata "
     "has all of them"),
    ('{"!array":["<f12",[1],"C","AAAAAAAAAAAAAAAA"]}',
     "numpy data of type <f12 arrived, but numpy has no such type in this process"),
])
def test_what_a_process_may_lack_is_no_violation_of_the_protocol(text, reason):
    with pytest.raises(ValueNotSupported) as caught:
        unpack(f"[{text}]".encode(), True, path="result", side="in this process")
    assert (caught.value.path, caught.value.reason) == ("result[0]", reason)


def test_an_object_with_two_keys_of_one_name_has_no_way_to_the_first():
    with pytest.raises(ValueNotSupported) as caught:
        unpack(b'{"a":{"!value":{"class":"app.Gone"}},"a":1}', True, path="result")
    assert caught.value.path == "result"


def test_what_lacks_something_and_is_not_json_either_is_no_json():
    with pytest.raises(ProtocolError):
        unpack(b'[{"!value":{"class":"app.Gone"}},{]', True)


# ------------------------------------------------------------------------ time of the processor

PRIME = 2 ** 61 - 1  # of two ints that differ by it, the hashes are equal


@pytest.mark.parametrize("unit", [b'"[["', b'"]"[', b'[["[]]"]]', b'"\\\\"[]'], ids=repr)
def test_brackets_are_found_wherever_texts_are_cut_at_little_memory(unit):
    """What they were split into took 17 times the memory of the text."""
    text = b'""[' + unit * 100_001 + b"]"
    outside = re.sub(rb'"[^"]*"', b"", text.replace(b"\\\\", b""))
    with Peak() as peak:
        found = values.brackets_of(text)
    assert found == outside and peak.bytes < 4 * len(text) + 2 ** 20


def test_keys_with_the_same_hash_travel_as_far_as_they_come_by_themselves():
    corners = set(itertools.product((-1, -2, 0), repeat=6))  # 64 of them with one hash
    doubles = {number * sign for number in range(5000) for sign in (-1, 1)}
    classes = {travel.Frozen(number * PRIME) for number in range(80)}
    for value in (corners, doubles, classes, dict.fromkeys(corners), {1.0, 1 + PRIME, -2, -1}):
        assert as_result(value) == value


@each("kind", ['{"!set":[@]}', '{"!dict":[@]}', '{"!frozenset":[@]}', '{"!counter":[@]}'])
@each("around", ['{"!frozenset":[@]}', '{"!frozenset":[{"!tuple":[@]}]}',
                 '{"!frozenset":[{"!value":{"class":"travel.Frozen","name":@}}]}'])
def test_frozensets_within_frozensets_of_one_hash_are_not_compared(kind, around):
    """Each level takes twice as long: 8 KB froze a process for ever."""
    def nested(number: int, levels: int) -> str:
        text = str(number)
        for _ in range(levels):
            text = around.replace("@", text)
        return text

    def keys(levels: int) -> bytes:
        between = ",0," if "dict" in kind or "counter" in kind else ","
        text = between.join([nested(number * (2 ** 61 - 1), levels) for number in (1, 2, 3)])
        return kind.replace("@", text + between[:-1]).encode()

    assert len(unpack(keys(2), True)) == 3
    with pytest.raises(ValueNotSupported, match="more frozensets within each other"):
        unpack(keys(12), True)


def test_the_hash_of_a_key_is_made_once_before_the_key_is_put_in(monkeypatch):
    """Those of fractions and paths take longer than all the rest of a set of them."""
    hashed = []
    monkeypatch.setattr(travel.Frozen, "__hash__", lambda self: hashed.append(self.name) or 0)
    keys = ",".join([f'{{"!value":{{"class":"travel.Frozen","name":{number}}}}}'
                     for number in range(20)])
    assert len(unpack(f'{{"!set":[{keys}]}}'.encode(), True)) == 20
    assert hashed == 2 * list(range(20))


def test_fractions_that_are_the_same_or_nearly_so_travel():
    value = [fractions.Fraction(-number % 3 - 2, 3) for number in range(1000)]
    assert as_result([value, value]) == [value, value]


def test_more_keys_of_one_hash_are_refused_for_what_they_are():
    value = {number * PRIME for number in range(1000)}
    with pytest.raises(ValueNotSupported, match="keys of one hash"):
        as_result([value])


def test_fractions_and_ranges_of_too_many_digits_are_refused_before_they_are_sent(monkeypatch):
    monkeypatch.setattr(values, "MAX_DIVISION", values.MAX_DIVISION // 16)
    long = (1 << 75_000) - 1
    for value in (fractions.Fraction(1 << 75_000, long), range(0, long, long >> 1000)):
        with pytest.raises(ValueNotSupported, match=r"^result: .*digits cannot travel"):
            as_result(value)
    for value in (fractions.Fraction(1 << 50_000, (1 << 50_000) - 1), range(long), long ** 9):
        assert as_result(value) == value


def test_digits_in_a_text_are_no_number():
    for tagged in (False, True):
        assert unpack(b'["' + b"7" * 9000 + b'",12]', tagged) == ["7" * 9000, 12]


# ----------------------------------------------------------------------------- flags of an enum


class Permission(enum.IntFlag):
    READ = 4
    WRITE = 2


class Wide(enum.Flag):
    A, B, C, D = 1, 2, 4, 8


@pytest.fixture
def flags(monkeypatch) -> None:
    monkeypatch.setattr(registered.registry, "classes", dict(registered.registry.classes))
    monkeypatch.setattr(registered.registry, "names", dict(registered.registry.names))
    registered.register(Permission, "P")
    registered.register(Wide, "W")


def test_unknown_bits_of_a_flag_leave_nothing_in_memory(flags):
    before = len(Permission._value2member_map_)
    text = ",".join(f'{{"!value":{{"class":"P","value":{8 * number + 8}}}}}'
                    for number in range(300))
    made = unpack(f"[{text}]".encode(), True)
    assert [int(one) for one in made] == list(range(8, 2408, 8))
    assert all(type(one) is Permission for one in made)
    assert len(Permission._value2member_map_) == before
    assert unpack(b'{"!value":{"class":"P","value":6}}', True) is Permission.READ | Permission.WRITE


def test_combinations_without_end_are_refused(flags, monkeypatch):
    monkeypatch.setattr(registered, "MAX_COMBINATIONS", 8)
    assert unpack(b'{"!value":{"class":"W","value":5}}', True) is Wide.A | Wide.C
    with pytest.raises(ValueNotSupported, match="8 combinations"):
        for value in range(16):
            assert unpack(f'{{"!value":{{"class":"W","value":{value}}}}}'.encode(), True)._value_ \
                == value
    assert unpack(b'{"!value":{"class":"P","value":6}}', True) == 6


def test_more_combinations_than_can_be_made_in_time_are_refused(flags):
    """Python makes each by a look at all members: of 60, twelve times as long as small tuples."""
    many = enum.IntFlag("Many", {f"m{bit}": 1 << bit for bit in range(60)})
    registered.register(many, "many")

    def text(count: int, times: int) -> bytes:
        return ("[%s]" % ",".join([f'{{"!value":{{"class":"many","value":{2 ** 62 + number}}}}}'
                                   for number in range(count)] * times)).encode()

    found = unpack(text(100, 200), True)  # those that come again are made once
    assert len(found) == 20_000 and found[0] is found[100] and found[99] == 2 ** 62 + 99
    with pytest.raises(ValueNotSupported, match="more combinations of many arrived than can be"):
        unpack(text(2000, 1), True)


def test_a_short_message_holds_few_combinations_that_come_again_in_the_next(flags):
    """Those of which Python keeps none: a stranger would have them made again and again."""
    many = enum.IntFlag("Many", {f"m{bit}": 1 << bit for bit in range(60)})
    registered.register(many, "many")

    def text(first: int, count: int) -> bytes:
        return ("[%s]" % ",".join([f'{{"!value":{{"class":"many","value":{first + number}}}}}'
                                   for number in range(count)])).encode()

    unpack(text(2 ** 59, 1000), True)  # it keeps them
    assert len(unpack(text(2 ** 61, 50), True)) == 50
    with pytest.raises(ValueNotSupported, match="more combinations of many arrived than can be"):
        unpack(text(2 ** 61, 200), True)


@pytest.mark.parametrize("name, value", [
    ("W", "0x10"), ("W", "-0x1"), ("W", "0x1" + "0" * 25_000), ("P", "0x1" + "0" * 25_000),
    ("P", "-0x1" + "0" * 25)], ids=lambda part: part[:5])
def test_bits_that_a_flag_cannot_have_are_lacking_and_cost_nothing(flags, name, value):
    started = time.thread_time()
    with pytest.raises(ValueNotSupported, match="unknown bits"):
        unpack(f'{{"!value":{{"class":"{name}","value":{{"!int":"{value}"}}}}}}'.encode(), True)
    assert time.thread_time() - started < patience(1)


@each("text", ['{"!set":[[1],[2]]}', '{"!frozenset":[[1],{"!frozenset":[]}]}',
               '{"!dict":[[1],{"!set":[]}]}', '{"!set":[%s]}' % ",".join(["[1]"] * 50)])
def test_keys_without_a_hash_are_no_value(text):
    with pytest.raises(ProtocolError):
        unpack(text.encode(), True)
