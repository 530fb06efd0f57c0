"""Type-true JSON: what goes in comes out, same types at every depth.

Plain values (None, bool, int, float, str, list, dict with str keys) become JSON by the standard
library's C encoder. What JSON would alter becomes a tagged object, a dict with one key such as
``{"!tuple": [1, 2]}`` (kinds.py lists them); bytes, long text and array data become buffers beside
the JSON. A message without any of these says so, and then nothing in it is taken for a tagged
object.
"""
from __future__ import annotations

import base64
import json
import sys
from binascii import a2b_base64
from collections import Counter
from functools import partial
from itertools import accumulate, chain
from json import encoder as json_encoder
from json import scanner as json_scanner
from typing import (Any, Callable, Collection, Dict, Iterable, Iterator, List, NamedTuple, Optional,
                    Sequence, Set, Tuple)

from ..errors import MessageTooLarge, ProtocolError, ValueNotSupported
from ..identity import printable
from . import columns, fast, pieces
from .arrays import Types
from .checks import Lacking, Malformed, is_of_the_data
from .frames import Buffer, MAX_BUFFERS
from .garbage import collection
from .kinds import PUT_TOGETHER, TAKE_APART, look_inside, take_apart_rare
from .limits import Limits
from .memory import (KEEPS_FRACTIONS, estimate, estimate_piece, size_of, size_of_reading, weight_of)
from .registered import Combinations
from .stacks import levels_here

NUMBERS = frozenset({int, float, bool, type(None)})
# The types all of whose values are JSON as they are; an int may be too large.
UNBOUNDED = frozenset({float, bool, type(None)})
STRING = frozenset({str})
SCALARS = NUMBERS | STRING
CONTAINERS = frozenset({list, dict})
PLAIN = SCALARS | CONTAINERS

# Bytes from which a buffer beside the JSON beats base64 or escapes within it.
LONG = 4 * 1024
# Values side by side up to which each is looked at. Among more, a long text hardly matters.
FEW = 1024
# Ints of more bits travel as hexadecimal: Python refuses more than 4,300 decimal digits (or 640, if
# an application says so), and takes quadratic time for them.
BITS = 2048
# Digits that are looked for at a time: the 617 of such an int hold at least one such window,
# wherever they start.
DIGITS = 300
# Values from which on the text that they make is counted before it is made: a few lists that hold
# each other several times, or one text many times, can stand for more than any memory holds.
MANY = 64 * 1024
# Bits of one number times bits of the other, summed over all divisions that a message may need:
# making a fraction or a range takes one. 2 ** 36 take 0.1 s, and are allowed for each MiB of text.
MAX_DIVISION = 1 << 36
# Keys of a set or dict up to which it hardly matters if all have the same hash.
FEW_KEYS = 16
# Comparisons of keys with the same hash that a message may need, times the characters of a key:
# they take up to 0.2 s. And comparisons for each key that count for nothing, since some come by
# themselves: -1 and -2 have the same hash.
MAX_COMPARED = 1 << 24
USUAL_COMPARED = 8
# Levels of frozensets in a key that has the hash of another one.
MAX_SETS = 6
# Fractions with the same hash of numerator and denominator. Later Pythons keep the hashes of 16,384
# fractions for the whole process, and compare each new one with all of those.
MAX_FRACTIONS = 100
# Tables of pandas and the like that a message may hold, and bytes from which on one does not count:
# making one takes up to a millisecond, however small it is.
MAX_TABLES, LARGE_TABLE = 512, 4096
# Lists of a message that come as columns though they are shorter than those that we send so, and
# groups whose values could be in another group: they take three times as long as others.
MAX_ODD_COLUMNS = 1000
# Levels of JSON containers that the parser and the encoder may go through on any stack, and levels
# of values that the packer may.
SAFE_DEPTH = 32
SAFE_LEVELS = 4
_STACK = "(all that the stack of a thread bears, see threading.stack_size)"
# Digits from which on a number takes too long for its size. Python refuses more than 4,300, unless
# the application has switched that off.
MAX_DIGITS = 4000
# Characters of the path to a value that are shown.
MAX_PATH = 120
#: The JSON of a message that is one long text.
LONG_TEXT = b'{"!str":0}'


class Packed(NamedTuple):
    """A value ready to travel."""

    text: str
    tagged: bool = False
    buffers: Sequence[Buffer] = ()


def _make_encode() -> Callable[[Any], str]:
    # ensure_ascii=False is shorter and faster, and keeps two lone surrogates two.
    make_encoder: Any = getattr(json_encoder, "c_make_encoder", None)
    if make_encoder is None:  # PyPy has no such name at all
        return json.JSONEncoder(ensure_ascii=False, check_circular=False,
                                separators=(",", ":")).encode
    # One encoder object for the life of the process: json.dumps makes one for each call.
    make = make_encoder(
        None, _refuse, json_encoder.encode_basestring, None, ":", ",", False, False, True)
    join = "".join
    return lambda value: join(make(value, 0))


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is not plain")


#: Plain value -> JSON text. For values that passed :func:`is_plain`, and for a few scalars.
encode_plain = _make_encode()
encode_string = json_encoder.encode_basestring


class Plain(NamedTuple):
    """What there is in something plain.

    :ivar values: how many values.
    :ivar with_floats: the values of each level at which there are floats.
    """

    values: int
    with_floats: List[List[Any]]


def is_plain(root: Any, limits: Limits = Limits()) -> Optional[Plain]:
    """What there is in a dict, list or tuple, if JSON alters nothing in it and no text in it needs
    a buffer; else None.

    Goes level by level, by functions that run in C: a loop in Python over 100,000 dicts would cost
    more than encoding them.

    :raises MessageTooLarge: it makes more JSON text than the limit.
    """
    dicts, lists = ([root], []) if type(root) is dict else ([], [root])
    weighed = False
    count, with_floats = 0, []
    for depth in range(limits.depth + 1):
        if depth == SAFE_DEPTH and levels_here(plain=True) < limits.depth:
            return None  # for the packer, which counts more exactly
        if sum(map(len, lists)) + sum(map(len, dicts)) > limits.text:
            check_weight([root], limits)  # each of them is two characters at least
        if dicts and not STRING.issuperset(map(type, chain.from_iterable(dicts))):
            return None
        level = list(chain.from_iterable(chain(lists, map(dict.values, dicts))))
        kinds = set(map(type, level))
        if not kinds <= PLAIN or str in kinds and len(level) <= FEW and has_long_text(level):
            return None
        if len(level) > MANY and not weighed and _repeats(level, limits.text):
            check_weight([root], limits)
            weighed = True
        count += len(level)
        if float in kinds:
            with_floats.append(level)
        if kinds.isdisjoint(CONTAINERS):
            return Plain(count, with_floats)
        dicts, lists = _of(dict, level, kinds), _of(list, level, kinds)
    return None


def _of(kind: type, level: List[Any], kinds: Set[type]) -> List[Any]:
    if kind not in kinds:
        return []
    return level if len(kinds) == 1 else [value for value in level if type(value) is kind]


def _repeats(level: Sequence[Any], limit: int) -> bool:
    """Whether many values may be the same few, and so make more text than they take memory.

    Looks at some of them only: if they are the same few, one is twice among a thousand.
    """
    step = len(level) // FEW
    some = level[::step]
    texts = sum([len(value) for value in some if type(value) is str]) * step
    containers = [id(value) for value in some if type(value) in CONTAINERS]
    return texts > limit or len(set(containers)) < len(containers)


def check_weight(roots: Sequence[Any], limits: Limits) -> None:
    """Refuse values that make more JSON text than the limit. Looks only once at what repeats.

    :param roots: containers.
    :raises MessageTooLarge: they certainly make more text than the limit.
    """
    if _weight(roots, {}, min(limits.depth, levels_here()) + 2) > limits.text:
        raise MessageTooLarge("JSON text of a message, in bytes", None, limits.text,
                              "NET_MAX_TEXT")


def _weight(values: Iterable[Any], known: Dict[int, int], levels: int) -> int:
    """Characters of JSON that values take at least; ``known`` has those of containers, by their id.

    Values that are nested too deep count for nothing: other checks refuse them, as they do values
    that contain themselves.
    """
    weight = 0
    for value in values:
        weight += 2
        cls = type(value)
        if cls is str:
            weight += len(value) if len(value) < LONG else 0
        elif cls not in NUMBERS:
            if id(value) not in known:
                known[id(value)] = 0
                inside = look_inside(value)
                if inside is not None and levels:
                    known[id(value)] = _weight(inside, known, levels - 1)
            weight += known[id(value)]
    return weight


def fits(text: str, limits: Limits) -> bool:
    """Whether plain JSON text can travel: it is not too long, and has no int of more than BITS
    bits."""
    return len(text) <= limits.text and not any(
        [text[start:start + DIGITS].isdigit() for start in range(0, len(text), DIGITS)])


def has_long_text(values: Iterable[Any]) -> bool:
    for value in values:
        if type(value) is str and len(value) >= LONG:
            return True
    return False


def _has_long_int(values: Iterable[Any]) -> bool:
    for value in values:
        if type(value) is int and value.bit_length() > BITS:
            return True
    return False


def scalar(value: Any) -> Optional[str]:
    """The JSON text of a number, a short text or the like; None for anything else."""
    kind = type(value)
    if kind is int:
        return repr(value) if value.bit_length() <= BITS else None
    if kind is str:
        return encode_string(value) if len(value) < LONG else None
    return encode_plain(value) if kind in NUMBERS else None


def are_named_scalars(values: Dict[Any, Any]) -> bool:
    """Whether these are only a few values, with texts for names, and all are numbers, short texts
    or the like."""
    return STRING.issuperset(map(type, values)) and are_scalars(values.values())


def are_scalars(values: Collection[Any]) -> bool:
    """Whether these are only a few values, and all are numbers, short texts or the like."""
    return len(values) <= FEW and (NUMBERS.issuperset(map(type, values)) or SCALARS.issuperset(
        map(type, values)) and not has_long_text(values))


def pack(value: Any, path: str, limits: Limits = Limits()) -> Packed:
    """One value as JSON text and buffers.

    :param path: how errors name the value, such as ``result``.
    :raises ValueNotSupported: something in it cannot travel; the error says where.
    :raises MessageTooLarge: over the limit of JSON text or of buffers.
    """
    text = scalar(value)
    if text is not None:
        return Packed(text)
    if type(value) is str:  # a long one then
        data = value.encode("utf-8", "surrogatepass")
        if len(data) <= limits.buffers:
            return Packed(LONG_TEXT.decode(), True, [data])
    packed = None if type(value) is str else pack_plain((value,), value, limits)
    if packed is not None:
        return packed
    packer = Packer(limits)
    return packer.packed(packer.under(path, lambda: packer.tag(value, 0)), path)


def lay_out(values: Sequence[Any], limits: Limits) -> Optional[Packed]:
    """Numbers, texts and the like, with long texts among them, as a JSON list and buffers; None if
    there are many values, or no long text. :class:`Packer` does the same, but takes three times as
    long."""
    if len(values) > FEW:
        return None
    placed: List[Any] = []
    buffers: List[Buffer] = []
    size = 0
    for value in values:
        if type(value) is str and len(value) >= LONG:
            data = value.encode("utf-8", "surrogatepass")
            value = {"!str": len(buffers)}
            buffers.append(data)
            size += len(data)
        elif type(value) is int and value.bit_length() > BITS:
            return None
        placed.append(value)
    if size > limits.buffers:
        return None
    text = encode_plain(placed)
    return Packed(text, True, buffers) if buffers and len(text) < LONG else None


def pack_plain(holder: Any, value: Any, limits: Limits) -> Optional[Packed]:
    """A value as plain JSON; None if that would alter it or be too large.

    :param holder: a list, tuple or dict that holds all of the value.
    """
    text = plain_text(holder, value, limits)
    return Packed(text) if text is not None and (len(text) < DIGITS or fits(text, limits)) else None


def plain_text(holder: Any, value: Any, limits: Limits) -> Optional[str]:
    """A value as plain JSON text; None if that would alter it. The text may be too large."""
    plain = is_plain(holder, limits)
    if plain is None:
        return None
    if plain.values >= fast.MANY:
        codec = fast.codec()
        if codec is not None and fast.all_finite(plain.with_floats):
            try:
                return codec.encode(value)
            except ValueError:
                pass  # for the standard library
    try:
        return encode_plain(value)
    except ValueError:
        return None  # an int of more digits than Python converts


class Packer:
    """Turns values of any kind that can travel into plain JSON values and buffers."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._depth = min(limits.depth, SAFE_LEVELS)
        self.buffers: List[Buffer] = []
        self._buffer_bytes = 0
        self._count = 0
        self._division = 0
        self._tops: List[Any] = []

    def lend(self, value: Any) -> Any:
        """A description of a value that stays here and can be used from there while a call lasts;
        None if it cannot be lent. Nothing can, unless a subclass says so."""
        return None

    def packed(self, tree: Any, path: str) -> Packed:
        """What :meth:`tag` and the like gave, as text.

        :param path: how errors name it.
        :raises MessageTooLarge: more JSON text than the limit.
        :raises ValueNotSupported: fractions or ranges in it take too long to make.
        """
        text = self._text(tree)
        if len(text) > self._limits.text:
            raise MessageTooLarge(f"{path}: JSON text, in bytes", len(text), self._limits.text,
                                  "NET_MAX_TEXT")
        if self._division > _most_division(len(text)):
            raise ValueNotSupported(path, "fractions or ranges of so many digits cannot travel")
        buffers, self.buffers = self.buffers, []  # a Lender lives as long as the call
        return Packed(text, True, buffers)

    def _text(self, tree: Any) -> str:
        codec = fast.codec() if self._count >= fast.MANY else None
        if codec is not None:
            try:
                text = codec.encode(tree)
                if "null" not in text:  # which it writes for a float that is not finite
                    return text
            except (ValueError, TypeError):
                pass  # for the standard library
        return encode_plain(tree)

    def division(self, one: int, other: int) -> None:
        """Count the work of making a value that is made by a division."""
        self._division += one.bit_length() * other.bit_length()

    @staticmethod
    def under(path: str, work: Callable[[], Any]) -> Any:
        """Do some packing under a path, so that an error says the whole path."""
        try:
            return work()
        except ValueNotSupported as problem:
            raise ValueNotSupported(_cut(path + problem.path), problem.reason) from None

    def tag(self, value: Any, depth: int) -> Any:
        """A value as plain JSON values; ``depth`` is the number of containers around it."""
        cls = type(value)
        if cls is str:
            if len(value) < LONG:
                return value
            return {"!str": self._buffer(value.encode("utf-8", "surrogatepass"))}
        if cls in NUMBERS:
            if cls is int and value.bit_length() > BITS:
                return {"!int": hex(value)}
            return value
        if cls is list:
            return self.series(value, depth)
        if cls is dict:
            return self._dict(value, depth)
        kind = TAKE_APART.get(cls)
        if kind is not None:
            return {kind.name: kind.take_apart(self, value, depth)}
        return take_apart_rare(self, value, depth)

    def series(self, values: Sequence[Any], depth: int) -> Any:
        """A sequence of values: as columns, if these are quicker, else one by one."""
        if len(values) < columns.MANY or depth >= SAFE_LEVELS \
                or SCALARS.issuperset(map(type, values)):
            return self.items(values, depth)
        self._enter(values, depth)
        try:
            found = columns.take_apart(self, values, depth)
        except ValueNotSupported:
            found = None  # the other way says where
        return self.each(values, depth) if found is None else {"!columns": found}

    def items(self, values: Sequence[Any], depth: int) -> List[Any]:
        """Each value of a sequence, tagged if need be."""
        self._enter(values, depth)
        kinds = set(map(type, values))
        if kinds <= SCALARS and not (int in kinds and _has_long_int(values)) \
                and not (str in kinds and has_long_text(values)):
            return list(values)
        return self.each(values, depth)

    def each(self, values: Sequence[Any], depth: int) -> List[Any]:
        """As :meth:`items`, for a container that was counted already."""
        tag = self.tag
        done: List[Any] = []
        try:
            for value in values:
                cls = type(value)
                # As tag does, which takes longer to call.
                done.append(value if cls in UNBOUNDED or cls is str and len(value) < LONG
                            else tag(value, depth + 1))
        except ValueNotSupported as problem:
            raise problem.inside(f"[{len(done)}]") from None
        return done

    def pairs(self, values: Dict[Any, Any], depth: int) -> List[Any]:
        """Keys and values of any dict, alternating in one list."""
        self._enter(values, depth)
        done: List[Any] = []
        key: Any = None
        try:
            for key, value in values.items():
                done.append(self.tag(key, depth + 1))
                done.append(self.tag(value, depth + 1))
        except ValueNotSupported as problem:
            raise problem.inside(f"[{_short(key)}]") from None
        return done

    def parts(self, values: Dict[str, Any], depth: int) -> Any:
        """The parts of an object, by name."""
        return self.named(values, depth, ".{}".format)

    def _dict(self, value: Dict[Any, Any], depth: int) -> Any:
        if not STRING.issuperset(map(type, value)):
            return {"!dict": self.pairs(value, depth)}
        return self.named(value, depth)

    def named(self, values: Dict[str, Any], depth: int,
              step: Callable[[str], str] = lambda name: f"[{_short(name)}]") -> Any:
        """A dict with str keys; ``step`` is how an error shows the way to a key."""
        if looks_tagged(values):
            return {"!dict": self.pairs(values, depth)}
        self._enter(values, depth)
        tag = self.tag
        done: Dict[str, Any] = {}
        key = ""
        try:
            for key, value in values.items():
                cls = type(value)
                done[key] = value if cls in UNBOUNDED or cls is str and len(value) < LONG \
                    else tag(value, depth + 1)
        except ValueNotSupported as problem:
            raise problem.inside(step(key)) from None
        return done

    def _enter(self, values: Any, depth: int) -> None:
        if depth >= self._depth:
            self._depth = min(self._limits.depth, levels_here())
            if depth >= self._depth:
                reason = "(NET_MAX_DEPTH)" if depth >= self._limits.depth else _STACK
                raise ValueNotSupported("", f"nested deeper than {self._depth} {reason}, or "
                                            f"contains itself")
        if depth < 1:
            self._tops.append(values)
        before = self._count
        self._count += len(values)
        if before <= MANY < self._count:
            check_weight(self._tops, self._limits)

    def bytes(self, data: Buffer) -> Any:
        """Bytes: short ones as base64, long ones as the number of a buffer."""
        if len(data) < LONG:
            return base64.b64encode(data).decode("ascii")
        return self._buffer(data)

    def _buffer(self, data: Buffer) -> int:
        self._buffer_bytes += len(data)
        if self._buffer_bytes > self._limits.buffers:
            raise MessageTooLarge("buffers of a message, in bytes", self._buffer_bytes,
                                  self._limits.buffers, "NET_MAX_BUFFERS")
        if len(self.buffers) >= MAX_BUFFERS:
            raise MessageTooLarge("long texts and buffers in a message", None, MAX_BUFFERS, None)
        self.buffers.append(data)
        return len(self.buffers) - 1


def _most_division(size: int) -> int:
    return max(MAX_DIVISION, size * (MAX_DIVISION >> 20))


def _cut(path: str) -> str:
    return path if len(path) <= MAX_PATH else path[:MAX_PATH] + "..."


def _short(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 40 else text[:37] + "..."


def looks_tagged(value: Dict[str, Any]) -> bool:
    """Whether a dict with str keys has the form of a tagged object."""
    return len(value) == 1 and next(iter(value))[:1] == "!"


# ------------------------------------------------------------------------------- and back again

# Bytes of memory that tagged objects take before they are charged.
STEP = 64 * 1024
# How errors name a whole message whose parts have names.
_WHOLE = "a message"
# JSON containers around the values of a message, and within the deepest tagged scalar.
ENVELOPE = 3
_TO_SQUARE = bytes.maketrans(b"{}", b"[]")
# A step of one level deeper, or back, as a signed byte.
_TO_STEPS = bytes.maketrans(b"[]", b"\x01\xff")
# Levels up to which it is quicker to look at all of them than at each bracket.
SHALLOW = 6


def check_depth(text: bytes, limit: int) -> None:
    """Refuse JSON with more levels of containers than the limit, before it is parsed.

    The parser goes one call deeper on the C stack for each level, and small stacks end early: a few
    kilobytes of brackets would kill the process.

    :raises ProtocolError: too deep, also for the stack of this thread, or brackets that do not
        match.
    """
    depth = depth_of(text, limit)
    if depth > SAFE_DEPTH and depth > levels_here(plain=True):
        raise ProtocolError(None, f"JSON nested deeper than {levels_here(plain=True)} {_STACK}")


def depth_of(text: bytes, limit: int) -> int:
    """How many levels of containers JSON has; 0 if there are only a few containers.

    :raises ProtocolError: more than the limit, or brackets that do not match.
    """
    few = min(limit, SAFE_DEPTH)
    if len(text) <= few or text.count(b"[") + text.count(b"{") <= few:
        return 0
    brackets = brackets_of(text)
    depth = _depth(brackets)
    if depth > limit or brackets.count(b"[") != brackets.count(b"]"):
        raise _too_deep(limit)
    return depth


def _too_deep(limit: int) -> ProtocolError:
    return ProtocolError(None, f"JSON nested deeper than {limit}, or not JSON")


def _depth(brackets: bytes) -> int:
    depth = 0
    while brackets and depth < SHALLOW:
        # Each turn takes away the innermost level.
        brackets = brackets.replace(b"[]", b"")
        depth += 1
    steps = memoryview(brackets.translate(_TO_STEPS)).cast("b")
    return depth + max(accumulate(steps), default=0)


def brackets_of(text: bytes) -> bytes:
    """The brackets of JSON outside of its strings, all of them as square ones."""
    return pieces.brackets_of(text).translate(_TO_SQUARE)


def _make_scan() -> Callable[[str, int], Tuple[Any, int]]:
    if getattr(json_scanner, "c_make_scanner", None) is None:  # PyPy
        return lambda text, start: (_decode_quickly(text), len(text))
    decoder: Any = json.JSONDecoder()
    return decoder.scan_once  # type: ignore[no-any-return]


def _make_decode(object_hook: Any = None, **hooks: Any) -> Callable[[str], Any]:
    decoder: Any = json.JSONDecoder(object_hook=object_hook, **hooks)
    if getattr(json_scanner, "c_make_scanner", None) is None:  # PyPy
        return _decode_quickly if object_hook is None and not hooks else \
            lambda text: decoder.decode(_without_space(text))
    scan = decoder.scan_once

    def decode(text: str) -> Any:
        value, end = scan(text, 0)
        if end != len(text):
            raise ValueError(f"more after the value, at {end}")
        return value
    return decode


def _decode_quickly(text: str) -> Any:
    """JSON by PyPy's own parser, six times as fast as a decoder object there."""
    try:
        return json.loads(_without_space(text))
    except ValueError:
        # What its errors quote of the text can be broken characters.
        raise ValueError("not JSON") from None


def _without_space(text: str) -> str:
    if text[:1].isspace() or text[-1:].isspace():
        raise ValueError("space around the value")
    return text


def _short_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise Malformed("a number of too many digits")
    return int(digits)


def _has_long_number(text: bytes) -> bool:
    """Whether there may be a number of too many digits; it may be a text with digits, too."""
    step = MAX_DIGITS // 2
    return len(text) > MAX_DIGITS and any(
        [text[start:start + step].isdigit() for start in range(0, len(text), step)])


#: JSON text and where it starts -> the value and where it ends.
_scan = _make_scan()
_decode_plain = _make_decode()
_decode_carefully = _make_decode(parse_int=_short_int)


def unpack(text: bytes, tagged: bool = False, buffers: Sequence[bytes] = (),
           limits: Limits = Limits(), path: str = "", side: str = "where it arrived",
           borrow: Optional[Callable[[Any], Any]] = None,
           charge: Optional[Callable[[int], None]] = None) -> Any:
    """The value of JSON text and buffers.

    :param path: how errors name the value, such as ``result``; empty for an object whose keys are
        such names themselves.
    :param side: how errors name this process, such as ``at the peer``: they may be read elsewhere.
    :param borrow: makes the stand-in for a value that the other side lends; None where nothing can
        be lent.
    :param charge: called with the bytes of memory that reading will take, below 0 for those that it
        did not take after all: once for a text without tagged objects, else for each next piece
        and for what the last one became. What it raises ends the reading.
    :raises ProtocolError: not JSON, too deep, or tagged objects that make no sense.
    :raises ValueNotSupported: a class, a member or a library that is not there in this process.
    """
    # Nearly every message is short and plain. Errors are found further down.
    if not tagged and SAFE_DEPTH <= limits.depth and (
            len(text) <= SAFE_DEPTH or len(text) <= MAX_DIGITS
            and text.count(b"[") + text.count(b"{") <= SAFE_DEPTH):
        try:
            string = text.decode("utf-8", "surrogatepass")
            value, end = _scan(string, 0)
            if end == len(string):
                return value
        except (ValueError, StopIteration, RecursionError):
            pass
    elif tagged and SAFE_DEPTH <= limits.depth and charge is None:
        found = only_text(buffers) if text == LONG_TEXT else _with_long_texts(text, buffers)
        if found is not None:
            return found
    if len(text) < STEP:
        return _unpack(text, tagged, buffers, limits, path, side, borrow, charge)
    # No object has less than a character.
    return collection.rarer(len(text), lambda: _unpack(
        text, tagged, buffers, limits, path, side, borrow, charge))


def _unpack(text: bytes, tagged: bool, buffers: Sequence[bytes], limits: Limits, path: str,
            side: str, borrow: Optional[Callable[[Any], Any]],
            charge: Optional[Callable[[int], None]]) -> Any:
    check = partial(_check_levels, tagged, limits, path, side)
    if len(text) <= pieces.PIECE:
        check(depth_of(text, _most_levels(tagged, limits)))
    try:
        if charge is not None and not tagged:
            charge(estimate(text))
        restorer = _Restorer(buffers, len(text), borrow, charge) if tagged else None
        return _read(text, restorer, check, path, side)
    except (ProtocolError, ValueNotSupported, MemoryError):
        raise
    except RecursionError:
        raise ValueNotSupported(
            path or _WHOLE, f"nested too deep for what is left of Python's recursion limit {side}"
        ) from None
    except Exception as problem:
        if not is_of_the_data(problem):
            raise
        raise _unreadable(problem) from None


def _unreadable(problem: Exception) -> ProtocolError:
    return ProtocolError(
        None, f"a value cannot be read: {type(problem).__name__}: {_text_of(problem)}")


def _most_levels(tagged: bool, limits: Limits) -> int:
    # Tagged, two containers of JSON may be one of the value.
    return (2 if tagged else 1) * (limits.depth + ENVELOPE)


def _check_levels(tagged: bool, limits: Limits, path: str, side: str, depth: int) -> None:
    """Refuse JSON that is too deep for the limits, or for the stack of this thread."""
    if depth > _most_levels(tagged, limits):
        raise _too_deep(_most_levels(tagged, limits))
    levels = levels_here(plain=not tagged) if depth > SAFE_DEPTH else depth
    if depth > (2 if tagged else 1) * levels:
        raise ValueNotSupported(path or _WHOLE, f"nested deeper than {levels} {_STACK} {side}")


def _with_long_texts(data: bytes, buffers: Sequence[bytes]) -> Any:
    """A call whose arguments are all plain except for long texts. None for anything else: then
    nothing was changed.

    :raises ProtocolError: a long text is not UTF-8.
    """
    if type(buffers) is not list or len(data) > MAX_DIGITS or b"\\" in data \
            or data.count(b"[") + data.count(b"{") > SAFE_DEPTH:
        return None
    try:
        text = data.decode("utf-8", "surrogatepass")
        value, end = _scan(text, 0)
    except (ValueError, StopIteration, RecursionError):
        return None
    args = value.get("args") if type(value) is dict else None
    if end != len(text) or type(args) is not list:
        return None
    places = [place for place, arg in enumerate(args) if type(arg) is dict and "!str" in arg]
    # Nothing else is tagged, and each buffer is there and used once.
    if text.count('"!') != len(places) or len(places) > len(buffers) or not all(
            [f'{{"!str":{number}}}' in text for number in range(len(places))]):
        return None
    try:
        for place in places:
            args[place] = _long_text(buffers, args[place]["!str"])
    except UnicodeDecodeError as problem:
        raise _unreadable(problem) from None
    return value


def _long_text(buffers: List[Any], number: int) -> str:
    text = str(buffers[number], "utf-8", "surrogatepass")
    buffers[number] = None  # a large one is freed now
    return text


def only_text(buffers: Sequence[bytes]) -> Optional[str]:
    """The text in the only buffer; None if there are several, or it is not UTF-8: then nothing was
    changed."""
    if type(buffers) is not list or len(buffers) != 1:
        return None
    try:
        text = str(buffers[0], "utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    buffers[0] = None  # a large one is freed now
    return text


def _by_codec(codec: fast.Codec, text: bytes) -> Any:
    try:
        return codec.decode(text)
    except ValueError:  # the standard library reads it, or raises the error
        return _decode_plain(text.decode("utf-8", "surrogatepass"))


def _by(decode: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda text: decode(text.decode("utf-8", "surrogatepass"))


def _read(text: bytes, restorer: Optional[_Restorer], check: Callable[[int], None], path: str,
          side: str) -> Any:
    """The value of a text.

    :param restorer: for a text with tagged objects; None for a plain one.
    :param check: called with the levels of containers in each piece, if it is read in pieces.
    """
    long_number = _has_long_number(text)
    if restorer is None:
        codec = fast.codec() if len(text) >= fast.LARGE and not long_number else None
        parse = partial(_by_codec, codec) if codec is not None else \
            _by(_decode_carefully if long_number else _decode_plain)
        return pieces.read(text, parse, lambda found: found, check) \
            if len(text) > pieces.PIECE else parse(text)
    restore = restorer.restore
    parse = _by(_make_decode(restore, **({"parse_int": _short_int} if long_number else {})))
    if restorer.charge is not None:
        restorer.weigh_more(size_of_reading(text))
        parse = partial(_read_counted, parse, restorer, len(text))
    value = pieces.read(text, parse, restore, check) if len(text) > pieces.PIECE else parse(text)
    restorer.settle()
    if restorer.lacking is not None:
        before, after = restorer.lacking
        raise ValueNotSupported(_path_of(value, path), f"{before} {side}{after}")
    return value


def _read_counted(parse: Callable[[bytes], Any], restorer: _Restorer, total: int,
                  piece: bytes) -> Any:
    restorer.weigh_more(estimate_piece(piece, total))
    restorer.settle()
    return parse(piece)


def _text_of(problem: Exception) -> str:
    try:
        return printable(str(problem))
    except ValueError:  # of an int with more digits than Python converts
        return "<its text cannot be made>"


#: Name of a tagged object -> what makes a value of its content, and what weighs that.
_KINDS = {name: (put_together, weight_of(name)) for name, put_together in PUT_TOGETHER.items()}


class _Restorer:
    """Puts tagged objects together again, the innermost first.

    :param size: characters of JSON text.
    :ivar lacking: what this process lacks for the first object that cannot be put together. Those
        after it stay as they came, so that the path to it can be found.
    :ivar types: of the numpy data so far.
    :ivar combinations: of flags so far.
    """

    def __init__(self, buffers: Sequence[bytes], size: int,
                 borrow: Optional[Callable[[Any], Any]] = None,
                 charge: Optional[Callable[[int], None]] = None) -> None:
        self.charge = charge
        self._weight = 0
        self._size = size
        self._borrow = borrow
        self._division = self._compared = self._odd_columns = 0
        self._tables = 0.0
        self._fractions: Dict[int, Any] = {}
        self.types = Types(size)
        self.combinations = Combinations(size)
        # The frame's own list, so that a large buffer is freed when its value has been made.
        self._buffers: List[Optional[bytes]] = \
            buffers if type(buffers) is list else list(buffers)
        self.lacking: Optional[Tuple[str, str]] = None
        self._kinds = _KINDS

    def restore(self, found: Dict[str, Any]) -> Any:
        """What an object becomes. Called for each object, so it calls little else."""
        if len(found) != 1:
            return found
        name, content = found.popitem()  # the quickest way to them
        kind = self._kinds.get(name)
        if kind is None:
            found[name] = content
            return self._as_it_came(found, name) if name[:1] == "!" else found
        put_together, weigh = kind
        try:
            value = put_together(self, content)
        except Lacking as problem:
            self.lacking = problem.before, problem.after
            self._kinds = {}
            found[name] = content
            self._as_it_came(found, name)
            return _HERE
        if self.charge is not None:
            self._weight += weigh(value, content)
            if self._weight >= STEP:
                self.settle()
        return value

    def _as_it_came(self, found: Dict[str, Any], name: str) -> Any:
        """A tagged object that is not put together, because something was lacking.

        :raises Malformed: no tagged object has this name.
        """
        if name not in _KINDS:
            raise Malformed(f"unknown tagged object {name[:40]!r}")
        if self.charge is not None:  # it was not counted: otherwise it does not stay
            self.weigh_more(sum(map(size_of, [found, *found.values()])))
        return found

    def weigh_more(self, size: int) -> None:
        """Count so many bytes of memory."""
        self._weight += size
        if abs(self._weight) >= STEP:
            self.settle()

    def settle(self) -> None:
        """Charge the memory that was not charged yet."""
        weight = self._weight - self.types.gone
        self._weight = self.types.gone = 0
        if self.charge is not None and weight:
            self.charge(weight)

    def division(self, one: int, other: int) -> None:
        """Refuse a value that would be made by a division of too many digits."""
        self._division += one.bit_length() * other.bit_length()
        if self._division > _most_division(self._size):
            raise Malformed("fractions or ranges of too many digits")

    def fraction(self, numerator: int, denominator: int) -> None:
        """Refuse a fraction if many others have the same hash."""
        if not KEEPS_FRACTIONS:
            return
        parts = (numerator, denominator)
        first = self._fractions.setdefault(hash(parts), parts)
        if first != parts:
            if type(first) is tuple:
                first = self._fractions[hash(parts)] = {first}
            first.add(parts)
            if len(first) > MAX_FRACTIONS:
                raise Lacking("more fractions of one hash arrived than can be compared in time")

    def table(self, size: int) -> None:
        """Refuse a table if there are very many small ones."""
        self._tables += max(0.0, 1 - size / LARGE_TABLE)
        if self._tables > MAX_TABLES:
            raise Lacking("more small tables arrived than can be made in time")

    def odd_columns(self, count: int) -> None:
        """Refuse very many columns of kinds that are never sent."""
        self._odd_columns += count
        if self._odd_columns > MAX_ODD_COLUMNS:
            raise Lacking("more lists in columns arrived than can be made in time, shorter or in "
                          "more groups than need be")

    def keys(self, keys: List[Any]) -> List[Any]:
        """Refuse keys that would have to be compared with each other for too long; returns them.

        A set or a dict compares each key with all earlier ones that have the same hash, and numbers
        are easily chosen so that they have.
        """
        if len(keys) > 1 and (not SCALARS.issuperset(map(type, keys)) or len(keys) > FEW_KEYS
                              and not STRING.issuperset(map(type, keys))):
            hashes = list(map(hash, keys))  # once: those of fractions and paths take long
            if len(set(hashes)) < len(hashes):
                self._check_equal_hashes(keys, hashes)
        return keys

    def _check_equal_hashes(self, keys: List[Any], hashes: List[int]) -> None:
        counts = Counter(hashes)
        if len(keys) > FEW_KEYS:
            compared = sum([count * (count - 1) // 2 for count in counts.values()])
            self._compared += max(0, compared - USUAL_COMPARED * len(keys)) \
                * max(100, self._size // len(keys))
            if self._compared > MAX_COMPARED:
                raise Lacking("more keys of one hash arrived than can be compared in time")
        _check_sets([key for key, one in zip(keys, hashes) if counts[one] > 1])

    def lent(self, content: Any) -> Any:
        """The stand-in for a value that the other side lends."""
        if self._borrow is None:
            raise Lacking("nothing can be lent")
        return self._borrow(content)

    def bytes(self, content: Any) -> bytes:
        """Bytes from base64, or the buffer of that number."""
        if type(content) is str:
            return _from_base64(content) if content else b""
        if type(content) is not int or not 0 <= content < len(self._buffers):
            raise Malformed("neither base64 nor the number of a buffer")
        data = self._buffers[content]
        # Each object copies its buffer. Without this, a few bytes of JSON could ask for any number
        # of copies of a large one.
        self._buffers[content] = None
        if data is None:
            raise Malformed("a buffer that is used twice")
        self._weight -= size_of(data)  # it becomes the value, or is freed
        return data


def _check_sets(keys: List[Any]) -> None:
    """Refuse keys of one hash that hold too many levels of frozensets.

    Comparing two frozensets of one hash takes twice as long for each level of frozensets within: 88
    levels would take for ever.
    """
    left = [(key, 0) for key in keys]
    while left:
        value, levels = left.pop()
        inside = look_inside(value)
        if inside is None:
            continue
        levels += type(value) is frozenset
        if levels > MAX_SETS:
            raise Lacking("more frozensets within each other arrived than can be compared")
        left += [(one, levels) for one in inside]


#: Base64 text -> bytes. Raises ValueError for what is no base64.
_from_base64: Callable[[str], bytes] = partial(a2b_base64, strict_mode=True) \
    if sys.version_info >= (3, 11) else partial(base64.b64decode, validate=True)


class _Here:
    """Marks the place of the object that cannot be put together."""


_HERE = _Here()


def _path_of(root: Any, path: str) -> str:
    """The path to the object that this process lacks something for, which ``_HERE`` marks.

    :param root: what was read; in it, the objects around that one are as they came.
    :param path: how the outermost value is named; if empty, its keys are names themselves.
    """
    keys: List[Any] = []
    trail = [(root, _inside(root))]
    while trail and root is not _HERE:
        for key, one in trail[-1][1]:
            if one is _HERE:
                return _cut(path + "".join(_steps(trail, [*keys, key], path)))
            if type(one) in _CONTAINERS and one and _holds_containers(one):
                trail.append((one, _inside(one)))
                keys.append(key)
                break
        else:
            trail.pop()
            del keys[-1:]
    return path  # the whole value, or one in an object with two keys of one name


def _inside(value: Any) -> Iterator[Tuple[Any, Any]]:
    return iter(value.items()) if type(value) is dict else \
        enumerate(value) if type(value) is list else iter(())


def _holds_containers(value: Any) -> bool:
    inside = value if type(value) is list else value.values()
    return not _CONTAINERS.isdisjoint(map(type, inside))


_CONTAINERS = frozenset({list, dict, _Here})
_ITEMS = frozenset({"!tuple", "!set", "!frozenset"})
_PAIRS = frozenset({"!dict", "!ordered", "!counter"})


def _steps(trail: Sequence[Tuple[Any, Any]], keys: List[Any], path: str) -> List[str]:
    """The steps of a path along JSON containers, each of which has the next one under a key."""
    steps: List[str] = []
    tag = None  # of the tagged object that a container is the content of
    found = zip(trail, keys)
    for (container, _), key in found:
        if type(container) is dict and looks_tagged(container):
            tag = key
            continue
        if tag == "!columns":
            place, parts = _steps_of_columns(container, key, found)
            steps += [f"[{place}]", *parts]
        else:
            steps.append(key if not path and not steps and type(container) is dict
                         else _step(container, key, tag))
        tag = None
    return steps


def _steps_of_columns(content: List[Any], group: int,
                      found: Iterator[Any]) -> Tuple[int, List[str]]:
    """The place of a value in a list that came as columns, and the steps from there.

    :param found: the next container on the way, which is the group, and those in it.
    """
    _, column = next(found)
    (inside, _), row = next(found)
    parts: List[str] = []
    if row == "!columns":  # the column itself came as columns
        (inside, _), row = next(found)
        row, parts = _steps_of_columns(inside, row, found)
    place, part = columns.place_of(content, group, column, row)
    return place, [part, *parts]


def _step(container: Any, key: Any, tag: Optional[str]) -> str:
    if type(container) is dict:
        return f".{key}" if tag == "!value" else f"[{_short(key)}]"
    if tag in _PAIRS:
        return f"[{_short_key(container[key - key % 2])}]"
    if tag == "!deque":
        return f"[{key - 1}]"
    return f"[{key}]" if tag is None or tag in _ITEMS else ""


def _short_key(key: Any) -> str:
    """A key that was read, shortened; "..." for one of a class that has code of its own, or that
    cannot be shown."""
    parts = key if type(key) is list else [key]
    return _short(key) if len(parts) <= FEW_KEYS and SCALARS.issuperset(map(type, parts)) \
        and not _has_long_int(parts) else "..."
