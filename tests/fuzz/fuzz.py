"""Mutated and random input for everything that reads what strangers send.

Each target takes bytes and may raise only the errors that it names. A target's inputs are recorded
good ones, mutated; the seed of a run is all that is needed to repeat it::

    PYTHONPATH=.:tests/support python tests/fuzz/fuzz.py 100000 [seed] [target]

An input may cost as much as its size allows, in time and in memory (costs.py). One that costs more,
or raises anything else, is kept in the folder ``corpus``, and read by the tests from then on.
"""
from __future__ import annotations

import builtins
import copy
import hashlib
import itertools
import json
import random
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Tuple

from net.discovery.lan import datagrams, neighbours
from net.discovery.lan.responder import Responder, Self
from net.discovery.membership import Heard, Membership
from net.context import Caller, Context
from net.dispatch import SEVERAL, Dispatch, Tally
from net.errors import MessageTooLarge, NetError, ProtocolError, ValueNotSupported
from net.identity import PeerId, encode_text
from net.run.lending import Borrower, Lender
from net.wire import deliveries, frames, legacy
from net.wire.checks import is_of_the_data
from net.wire.failures import describe, rebuild
from net.wire.limits import Limits
from net.wire.messages import (Ask, Call, decode_answer, decode_call, decode_count, decode_items,
                               decode_outcome, decode_reply, encode_answer, encode_ask, encode_call,
                               encode_end, encode_failure, encode_items, encode_refusal,
                               encode_result, encode_taken, outcome_of_error, tag_of)
from net.wire.session import (Hello, PrefaceParser, Unknown, caller_session, encode_hello,
                              encode_preface, server_session)
from net.wire.values import pack, unpack
from costs import Cost, TooCostly
from intruders import BUFFER, INTRUDERS
from using import use

# Small: what is declared beyond them must be refused, not waited for.
LIMITS = Limits(2 ** 20, 2 ** 20)
CORPUS = Path(__file__).with_name("corpus")
CALLER = Caller(("192.0.2.1", 40000), None)

# Bytes of a value that is there many times.
GROWN = 64 * 1024

# Bytes and words that parsers treat in a special way.
SPICE = [b"\x00", b"\xff", b"\x80", b"[", b"]", b"{", b"}", b'"', b"\\", b",", b":", b"e", b"=",
         b"-", b"1e999", b"NaN", b"Infinity", b"null", b"true", b'{"!tuple":', b'{"!bytes":0}',
         b'"!dict"', b"\\ud800", b"\\u0000", b"\xef\xbb\xbf", b"\xff\xff\xff\xff",
         b"\x7f\xff\xff\xff", b"[" * 300, b"{\"a\":" * 150, b"9" * 5000, b"kwargs",
         b"raised", b"refused", b"\n", b"\x1b[2J", b"builtins", b"SystemExit",
         b'"types"', b"__init__", b"__class__"]


class Target(NamedTuple):
    """Something that reads bytes.

    :ivar read: takes the bytes.
    :ivar allowed: what it may raise.
    :ivar seeds: good inputs.
    :ivar grow: makes an input what is read, so that a small one can stand for a large one.
    """

    read: Callable[[bytes], Any]
    allowed: Tuple[type, ...]
    seeds: List[bytes]
    grow: Callable[[bytes], bytes] = bytes


def _joined(message: List[Any]) -> bytes:
    return b"".join(bytes(piece) for piece in message)


def _calls() -> List[bytes]:
    values: List[Tuple[Any, ...]] = [
        (), (1, 2.5, None, True), ("text", "\u20ac\ud800"), ([1, [2, [3]]], {"a": {"b": "c"}}),
        ((1, 2), {3}, frozenset((4,)), {5: 6}, 7j), (b"short", b"x" * 5000, "y" * 5000),
        (10 ** 700, float("inf"), -0.0), ({"!tuple": [1]},)]
    calls = [_joined(encode_call(1, encode_text("add"), args, {})) for args in values]
    calls.append(_joined(encode_call(3, encode_text("add"), (1,), {}, seconds=2.5)))
    calls.append(_joined(encode_call(4, encode_text("add"), (len,), {"b": iter("ab")},
                                     packer=Lender(LIMITS))))
    calls.append(_joined(encode_call(
        5, SEVERAL, (encode_text("add").decode(), [[], [1, (2,)], [b"x"]]), {})))
    return calls + [_joined(encode_call(2, encode_text("x.y"), (), {"peer": 1, "b": (2,)}))]


def _replies() -> List[bytes]:
    try:
        {}["missing"]
    except KeyError as problem:
        failure = problem
    errors = [failure, OSError(2, "no", "file"), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")]
    return [_joined(encode_result(1, value)) for value in (1, "x", [1, {"a": (2,)}], b"z" * 5000)] \
        + [_joined(encode_failure(2, error)) for error in errors] \
        + [_joined(encode_result(3, [{"value": 1}, outcome_of_error(failure).content]))] \
        + [_joined(encode_refusal(0, error)) for error in (
            ProtocolError(None, "why"), MessageTooLarge("x", 5, 4, "NET_MAX_TEXT"))]


def _frame(data: bytes, kinds: frozenset) -> frames.Frame:
    frame = frames.FrameParser(LIMITS, kinds).receive(data)
    if frame is None:
        raise frames.EndOfStream(len(data))
    return frame


def read_call(data: bytes) -> None:
    """A frame on the server's side, decoded and answered as the server does."""
    frame = _frame(data, frozenset((frames.CALL,)))
    context = Context(CALLER)
    context.borrow = Borrower(None, None, context, LIMITS).borrow  # type: ignore[arg-type]
    reply = _dispatch.answer(frame, context, Tally())
    assert reply and isinstance(reply[0], bytes)
    tag_of(frame.text)
    decode_call(frame)


def read_reply(data: bytes) -> None:
    """A frame on the caller's side, and the outcomes that it may hold."""
    value = decode_reply(_frame(data, frames.REPLIES), ("127.0.0.1", 3010), None, b"")
    for outcome in value if type(value) is list else ():
        decode_outcome(outcome, ("127.0.0.1", 3010), b"")


def read_old_call(data: bytes) -> None:
    """A request of the old dialect, answered as the server does."""
    session = legacy.LegacySession()
    if session.receive(data) is not None:
        assert len(_dispatch.answer_legacy(session, Context(CALLER), Tally())) <= legacy.MAX_MESSAGE


def read_preface(data: bytes) -> None:
    """The first bytes of a connection, as its server reads them."""
    preface = PrefaceParser().receive(data)
    assert preface is None or preface.group is None or 0 < len(preface.group) <= 64


def read_greeting(data: bytes) -> None:
    """What follows a preface on the caller's side: HELLO and replies, in pieces."""
    _read_all(caller_session(LIMITS), data, (Hello, frames.Frame, Unknown))


def read_requests(data: bytes) -> None:
    """What follows HELLO on the server's side."""
    _read_all(server_session(LIMITS), data, (frames.Frame, Unknown))


def _read_all(session: Any, data: bytes, kinds: Tuple[type, ...]) -> None:
    step = 1 + len(data) % 40
    for start in range(0, len(data), step):
        event = session.receive(data[start:start + step])
        while event is not None:
            assert isinstance(event, kinds)
            event = session.receive()


def read_items(data: bytes) -> None:
    """A frame of a streamed result, on the caller's side."""
    frame = _frame(data, frozenset((frames.ITEM, frames.END)))
    if frame.kind == frames.ITEM:
        assert decode_items(frame, LIMITS)
    else:
        unpack(frame.text, frame.tagged, frame.buffers, LIMITS)


def read_ask(data: bytes) -> None:
    """What is asked of a caller that lends a function and an iterator."""
    lender = Lender(LIMITS)
    encode_call(1, encode_text("add"), (lambda *args: args, iter(range(100))), {}, LIMITS, None,
                lender)
    frame = _frame(data, frozenset((frames.ASK,)))
    assert lender.answer(frame)[0][:1] == bytes((frames.ANSWER,))


def read_answer(data: bytes) -> None:
    """What a caller answers about what it lends."""
    frame = _frame(data, frozenset((frames.ANSWER,)))
    name, value = decode_answer(frame, LIMITS)
    assert name in ("value", "items", "last", "raised")
    if name == "raised":
        repr(value), str(value)


def read_value(data: bytes) -> None:
    """JSON and buffers alone. What comes of it is used as an application may use it."""
    context = Context(CALLER)
    borrow = Borrower(None, None, context, LIMITS).borrow  # type: ignore[arg-type]
    use(unpack(data[1:], bool(data[:1] > b"p"), [BUFFER, b"abc"], LIMITS, borrow=borrow))


def many(data: bytes) -> bytes:
    """A value many times, as a large message has it: what costs little once is found."""
    return data[:1] + b"[" + b",".join([data[1:]] * (GROWN // (len(data) + 1) + 1)) + b"]"


def read_many(data: bytes) -> None:
    """What is alike side by side, counted as a large request is."""
    unpack(data[1:], bool(data[:1] > b"p"), [], LIMITS, charge=abs)


def read_failure(data: bytes) -> None:
    """The description of an exception alone."""
    described = unpack(data, True, [BUFFER], LIMITS)
    try:
        error = rebuild(described, CALLER.address, b"dGFn")
    except Exception as problem:
        if not is_of_the_data(problem):
            raise
        return
    use(error)


def read_events_frame(data: bytes) -> None:
    """What a publisher and its subscriber send each other."""
    frame = _frame(data, frozenset(_OF_EVENTS))
    for event in _OF_EVENTS[frame.kind](frame):
        assert event is not frame


_OF_EVENTS: Dict[int, Callable[[frames.Frame], Iterable[Any]]] = {
    frames.EVENT: lambda frame: deliveries.read_events(frame, LIMITS),
    frames.SUBSCRIBE: deliveries.read_subscribe,
    frames.UNSUBSCRIBE: deliveries.read_unsubscribe,
    frames.FAILED: deliveries.read_failed,
    frames.TAKEN: lambda frame: [deliveries.read_taken(frame)],
    frames.RESULT: lambda frame: [deliveries.read_subscribed(frame)],
}


def _values() -> List[bytes]:
    plain = [b'[1,2.5,null,true,"x"]', b'{"a":[{"b":"\\u20ac"}]}', b"-1e5"]
    tagged = [text.encode() for text in INTRUDERS.values()]
    tagged += [b'[{"!set":[1,{"!tuple":[2]}]},{"!dict":[{"!date":[2020,1,1]},[]]}]',
               b'{"!deque":[3,{"!datetime":[2020,1,1,2,3,4,5,1,{"!timezone":[0,3600,0,"x"]}]}]}',
               b'{"!datetime":[2020,6,1,2,3,4,5,0,{"!zone":"Europe/Vienna"}]}',
               b'{"!array":[[8,true,[["a",0,"<i4",[2]]]],[2],"F",{"!str":1}]}',
               b'{"!scalar":["<M8[s]","AAAAAAAAAAA="]}', b'{"!fraction":[{"!int":"0x1f"},3]}',
               b'{"!value":{"class":"travel.Color","name":"RED"}}',
               b'{"!value":{"class":"travel.Access","value":5}}',
               b'{"!value":{"class":"travel.Point","x":1,"y":{"!lent":[0,"function","f"]}}}']
    return [b"p" + text for text in plain] + [b"t" + text for text in tagged]


def _failures() -> List[bytes]:
    chained, held = KeyError("there"), OSError(2, "gone", "file")
    chained.__cause__, chained.__context__ = held, IndexError(5)
    chained.extra = (1, ValueError("held"))  # type: ignore[attr-defined]
    errors: List[BaseException] = [
        ValueError("x", (1,)), chained, UnicodeDecodeError("utf-8", b"a\xffb", 1, 2, "why"),
        SyntaxError("bad", ("f", 1, 2, "x\n")), ImportError("no", name="x"), SystemExit(3),
        NameError("x"), AttributeError("y"), StopIteration(7), json.JSONDecodeError("x", "y", 0)]
    group: Any = getattr(builtins, "ExceptionGroup", None)
    if group is not None:
        errors.append(group("g", [ValueError(1), group("h", [KeyError(2)])]))
    return [pack({**describe(error), "traceback": "Traceback"}, "x").text.encode()
            for error in errors]


def _events() -> List[bytes]:
    triggered = [("moved", number, deliveries.pack_arguments(args, {"k": 1}))
                 for number, args in enumerate([(1, "x"), ([{}],), ((1,), {2}), (b"z" * 5000,)])]
    pair = ("moved", b"dGFn")
    return [_joined(message) for message in (
        *[deliveries.encode_events(1, [events]) for events in deliveries.join(triggered)],
        deliveries.encode_subscribe(3, deliveries.Subscribe(pair, 3010, [("10.0.0.1", 3010)])),
        deliveries.encode_unsubscribe(pair), deliveries.encode_taken(4, "why"),
        deliveries.encode_subscribed(3, 7), deliveries.encode_failed([("moved", "dGFn", "x")], 2))]


def read_taken(data: bytes) -> None:
    """How many items of a stream were taken."""
    assert decode_count(_frame(data, frozenset((frames.TAKEN,)))) >= 0


def read_old_reply(data: bytes) -> None:
    """A reply of an old dialect."""
    for dialect in (legacy.BASE64, legacy.PLAIN):
        legacy.Reply(dialect, data).value(None, b"")


class _Silence:
    """Takes what a membership sends, and tells it nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args: False


_clock = itertools.count()
_membership = Membership(b"m" * 16, 3010, _Silence(), lambda address: bytes(8))
_responder = Responder(lambda: Self(b"m" * 16, 3010, 2, b"{}"), _membership.sum, False)
_membership.watch(True, 0.0)
_membership.add(Heard(("10.0.0.1", 3010), b"i" * 16, 2, b"{}", 0.1), 0.0)


def read_datagram(data: bytes) -> None:
    """A datagram: whatever comes, the answer is never longer."""
    now, source = next(_clock) / 100, ("10.0.0.1", 3010)
    message = datagrams.decode(data)
    if message is None:
        return
    if message.kind == datagrams.ASK:
        reply = _responder.answer(message, source, now)
        assert reply is None or len(reply) <= len(data)
        _membership.asked(message, source, now)
    else:
        _membership.received(message, source, now)
    _membership.tick(now)
    _responder.beats(now)
    assert len(_membership.members) == 1 or not _membership.members


def read_table(data: bytes) -> None:
    """What arp and ip print: only addresses of hosts come out."""
    for parse in (neighbours.parse_arp, neighbours.parse_proc, neighbours.parse_ip):
        for host in parse(data):
            assert neighbours.is_host(host.encode())


_ran: List[Any] = []
_dispatch = Dispatch({encode_text("add"): lambda *args, **kwargs: _ran.append(1) or len(args)})

_ARP = [b"? (10.0.0.7) at 02:00:00:00:00:07 [ether] on eth0\nhost (10.0.0.8) at <incomplete>\n",
        b"  10.0.0.9           02-00-00-00-00-09     dynamic\r\n",
        b"IP address       HW type     Flags       HW address            Mask     Device\n"
        b"10.0.0.5         0x1         0x2         02:00:00:00:00:05     *        eth0\n",
        b"10.0.0.6 dev eth0 lladdr 02:00:00:00:00:06 REACHABLE\n",
        b'[{"dst":"10.0.0.4","lladdr":"02:00:00:00:00:04","state":["STALE"]}]']

TARGETS: Dict[str, Target] = {
    "call": Target(read_call, (NetError, frames.EndOfStream), _calls()),
    "reply": Target(read_reply, (NetError, frames.EndOfStream), _replies()),
    "preface": Target(read_preface, (ProtocolError,), [
        encode_preface(), encode_preface("render", 5), encode_preface("\u20ac" * 64)]),
    "greeting": Target(read_greeting, (NetError,), [
        _joined(encode_hello("ab" * 16, LIMITS)) + reply for reply in _replies()]),
    "requests": Target(read_requests, (NetError,), [
        call + _joined(frames.pack(99, 7, b"later")) + call for call in _calls()]),
    "items": Target(read_items, (NetError, frames.EndOfStream), [
        *[_joined(encode_items(1, [pack(one, "item") for one in items])) for items in (
            (1, 2, 3), ("x",), ([1], {"a": None}), ((1,), {2}), (b"z" * 5000,))],
        _joined(encode_end(1, None)), _joined(encode_end(1, (1, b"x")))]),
    "ask": Target(read_ask, (NetError, frames.EndOfStream), [
        _joined(encode_ask(1, one)) for one in (
            Ask(0, [1, (2,)], {"a": None}), Ask(1, [], {}, 64), Ask(0, [b"x" * 5000], {}))]),
    "answer": Target(read_answer, (NetError, frames.EndOfStream), [
        _joined(encode_answer(1, *one)) for one in (
            ("value", None), ("value", {"a": (1,)}), ("items", [1, 2]), ("last", []),
            ("raised", describe(KeyError("x"))))]),
    "value": Target(read_value, (ProtocolError, ValueNotSupported), _values()),
    "many": Target(read_many, (ProtocolError, ValueNotSupported), _values(), many),
    "failure": Target(read_failure, (ProtocolError, ValueNotSupported), _failures()),
    "events": Target(read_events_frame, (NetError, frames.EndOfStream), _events()),
    "taken": Target(read_taken, (NetError, frames.EndOfStream), [
        _joined(encode_taken(1, count)) for count in (0, 1, 256, 10 ** 17)]),
    "old call": Target(read_old_call, (NetError,), [
        legacy.encode_call(Call(encode_text("add"), [1, "x", {"a": None}], {"b": 2})),
        encode_text('{"connection": 1}'), encode_text("[]")]),
    "old reply": Target(read_old_reply, (NetError,), [
        legacy.encode_result(5), legacy.encode_result({"a": 1}), legacy.encode_error("E: x"),
        encode_text("NULL")]),
    "datagram": Target(read_datagram, (), [datagrams.encode(datagrams.Message(
        kind, 2 | flags, 3010, bytes(8), b"i" * 16, body)) for kind, flags, body in (
            (datagrams.ASK, 0, datagrams.encode_question(
                datagrams.Question(b"abcd" * 3, 60, 1.0), 99)),
            (datagrams.ANSWER, 0, datagrams.encode_said(b"{}", bytes(8), 9)),
            (datagrams.HELLO, 0, datagrams.encode_said(b"{}", bytes(8), 0)),
            (datagrams.GOODBYE, 0, b""),
            (datagrams.BEAT, 0, datagrams.SUM.pack(2, 5, 0)),
            *((kind, *datagrams.encode_list([datagrams.Entry((host, 3010), b"iiii")])[0])
              for kind in (datagrams.LIST, datagrams.DOUBT)
              for host in ("10.0.0.1", "fd00::1", "fe80::1%2")))]),
    "neighbours": Target(read_table, (), _ARP),
    "peer id": Target(PeerId, (NetError,), [encode_text("10.0.0.1:3010 -> None"),
                                            encode_text("h:1 -> a group")]),
}


def mutated(chance: random.Random, seed: bytes, others: List[bytes]) -> bytes:
    """A good input with a few things changed."""
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(8)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at:at + chance.randrange(1, 9)] = chance.choice(SPICE)
        elif kind == 2:
            data[at:at] = chance.choice(SPICE)
        elif kind == 3:
            del data[at:at + chance.randrange(1, 20)]
        elif kind == 4:
            del data[at:]
        elif kind == 5 and data:
            data[at % len(data)] = chance.randrange(256)
        elif kind == 6:
            other = chance.choice(others)
            data[at:] = other[chance.randrange(len(other) + 1):]
        else:
            data[at:at] = data[max(0, at - chance.randrange(1, 40)):at]
    return bytes(data)


# What takes the place of parts of JSON.
ODD = [None, True, 0, 1, -1, 255, 2 ** 31, -2 ** 63, 10 ** 30, 1.5, 1e308, float("nan"), "", "x",
       "\0", "\ud800", "UTC", "travel.Frozen", "0x" + "f" * 600, "1E+999999",
       "1E+99999999999999999999", "AAAA", [], [[]], {},
       {"!str": 0}, {"!bytes": 1}, {"!range": [0, 10 ** 12, 1]}, {"!int": "-0x1"}]


def regrown(chance: random.Random, seed: bytes, others: List[bytes]) -> bytes:
    """Good JSON with a few parts in other places, so that it is still JSON."""
    trees = [json.loads(text) for text in (seed, chance.choice(others))]
    for _ in range(chance.choice((1, 1, 2, 3))):
        (_, *places), (parts, *_) = _places(trees[0]), _places(trees[1])
        if not places:
            break
        holder, key = chance.choice(places)
        kind = chance.randrange(5)
        if kind == 0 and type(holder) is list:
            del holder[key]
        elif kind == 1 and type(holder) is list:
            holder.insert(key, chance.choice(ODD))
        elif kind == 2:
            holder[key] = [holder[key]] * chance.choice((1, 2, 50))
        else:
            new = chance.choice(ODD) if kind == 3 else chance.choice(parts)
            holder[key] = copy.deepcopy(new)
    return json.dumps(trees[0]).encode()


def _places(tree: Any) -> List[Any]:
    """All that is in a tree, the tree included; and then the place of each part: what holds it, and
    its key."""
    parts: List[Any] = [tree]
    places: List[Any] = []
    for part in parts:  # grows on the way
        if len(parts) > 1000:
            break
        keys = list(part) if type(part) is dict else range(len(part)) if type(part) is list else ()
        parts.extend(part[key] for key in keys)
        places.extend((part, key) for key in keys)
    return [parts, *places]


def with_right_lengths(chance: random.Random, data: bytes) -> bytes:
    """Often, a frame whose lengths fit again, so that what is inside gets read."""
    if len(data) < frames.HEAD or chance.random() < 0.3:
        return data
    kind, flags, count, number, _ = frames.HEADER.unpack_from(data)
    start = frames.HEAD + 8 * count
    if count > 50 or len(data) < start:
        return data
    buffers = sum(frames.LENGTH.unpack_from(data, at)[0] for at in range(frames.HEAD, start, 8))
    size = max(0, len(data) - start - buffers) % 2 ** 32
    return frames.HEADER.pack(kind, flags, count, number, size) + data[frames.HEAD:]


def repaired(chance: random.Random, name: str, data: bytes) -> bytes:
    """Past the first check of a target, so that the next ones are reached."""
    if name in ("call", "reply", "greeting", "requests", "items", "ask", "answer", "taken",
                "events"):
        return with_right_lengths(chance, data)
    if name == "preface" and len(data) > 8 and chance.random() < 0.7:
        return data[:6] + (len(data) - 8).to_bytes(2, "big") + data[8:]
    if name.startswith("old") and chance.random() < 0.7:
        import base64

        # Changed inside the base64 instead of around it.
        try:
            inner = base64.b64decode(data[:len(data) // 4 * 4])
        except ValueError:
            return data
        return base64.b64encode(mutated(chance, inner, [b"{}"]))
    return data


def changed(chance: random.Random, name: str, seeds: List[bytes]) -> bytes:
    """The next input of a target."""
    seed = chance.choice(seeds)
    if name in ("value", "many", "failure") and chance.random() < 0.8:
        if name == "failure":
            return regrown(chance, seed, seeds)
        return seed[:1] + regrown(chance, seed[1:], [other[1:] for other in seeds])
    return repaired(chance, name, mutated(chance, seed, seeds))


class Found(AssertionError):
    """An input that was not read as it should be."""

    def __init__(self, name: str, data: bytes, where: str) -> None:
        super().__init__(f"{name}, {where}: {data!r}")
        self.name = name
        self.data = data


def feed(name: str, data: bytes, cost: Cost, where: str = "kept") -> str:
    """Have a target read an input; gives the name of the error that came.

    :param where: the input is from, for people.
    :raises Found: it raised what it must not, or took more than its share.
    """
    target = TARGETS[name]
    try:
        cost.check(target.read, target.grow(data))
    except TooCostly as problem:
        raise Found(name, data, where) from problem
    except target.allowed as problem:
        return type(problem).__name__ if type(problem).__module__.startswith("net.") \
            else "an error of a function"
    except BaseException as problem:
        raise Found(name, data, where) from problem
    return "fine"


def run(name: str, count: int, seed: int) -> Dict[str, int]:
    """Feed a target with mutated inputs; gives how often which error came.

    :raises Found: see :func:`feed`; says the seed and the input.
    """
    target = TARGETS[name]
    chance = random.Random(f"{name} {seed}")
    outcomes: Dict[str, int] = {}
    with Cost() as cost:
        for number in range(count):
            data = changed(chance, name, target.seeds)
            outcome = feed(name, data, cost, f"seed {seed}, input {number}")
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def kept(name: str) -> List[Path]:
    """The files with inputs of a target that once did harm, or lead to rare places."""
    return sorted((CORPUS / name.replace(" ", "-")).glob("*"))


def keep(found: Found) -> Path:
    """Add an input to the corpus."""
    folder = CORPUS / found.name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(found.data).hexdigest()[:12]
    path.write_bytes(found.data)
    return path


def main() -> None:
    count = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(10 ** 6)
    for name in sys.argv[3:] or TARGETS:
        started = time.perf_counter()
        try:
            outcomes = run(name, count, seed)
        except Found as found:
            print("kept in", keep(found))
            raise
        print(f"{name}: {count:,} inputs, seed {seed}, {time.perf_counter() - started:.0f} s: "
              f"{outcomes}", flush=True)


if __name__ == "__main__":
    main()
