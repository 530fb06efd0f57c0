"""Exceptions: described as JSON values on one side, rebuilt and raised on the other.

A description has the classes along the MRO, the text, the values that the exception holds, and its
traceback as text. The exceptions that it is linked with (causes, contexts, and those in a group, in
args or in attributes) are beside it, in ``related``. They refer to each other by their places
there; 0 is the outermost exception.

Only a class that is loaded here already, and is an Exception, is ever used; nothing is imported,
and none of an application's code runs: see matching.py.
"""
from __future__ import annotations

import functools
import traceback
from types import TracebackType
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from ..errors import RemoteError
from ..identity import address_of, place_text, printable, printable_block
from .checks import Malformed, a_list, a_text, a_whole, an_object, is_of_the_data
from .limits import Limits
from .matching import (GROUP, REMOTE_ERROR, Name, args_of, cause_of, constructor_of,
                       context_of, derives, dict_of, find_loaded, inner_of, is_a, is_builtin,
                       is_context_suppressed, is_group, matching_class, members_of, mro, name_of,
                       owner_of, set_args, set_cause, set_context, suppress_context, traceback_of)
from .matching import Rebuilt as _Rebuilt
from .values import Packer

# Characters of a remote traceback. The end, which says most, is what stays.
MAX_TRACEBACK = 64 * 1024
# Exceptions that travel with one: causes, contexts, those of groups. The traceback text has more.
MAX_GROUP = 100
# Exceptions that Python may write out. It writes one in groups once for each way that leads to it.
MAX_SHOWN = 5000

# Characters of a text where the whole description of an exception would be too large to travel.
MAX_BRIEF = 2000
# Characters of what an exception's own repr gives.
MAX_REPR = 64 * 1024
# Largest line and column of a syntax error. Python marks as many characters when it shows one.
MAX_POSITION = 1_000_000
# Class names along an MRO, and characters in one.
MAX_NAMES = 50
MAX_NAME = 500
# Notes on an exception.
MAX_NOTES = 1000

#: Attributes that belong to Python and to app-net, which no remote error may set.
_RESERVED = frozenset(dir(RemoteError)) | {"add_note", "_described"}
_POSITIONS = ("lineno", "offset", "end_lineno", "end_offset")
_NO_TEXT = "<its text cannot be made"
# Packages whose code may stand between us and the function that was called.
_CALLERS = (__name__.partition(".")[0] + ".", "asyncio.", "concurrent.futures.")
_UNICODE_ERRORS = (UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError)


def describe(error: BaseException, detail: str = "full", brief: bool = False,
             limits: Limits = Limits()) -> Dict[str, Any]:
    """An exception as values that can travel.

    :param detail: ``full``; ``type`` leaves out the traceback; ``none`` also leaves out the text
        and the values that it holds.
    :param brief: leave out the values that it holds, and of a long text all but the end.
    """
    described: Dict[str, Any] = {"types": [list(name) for name in _names(error)]}
    if detail == "none":
        return {**described, "text": "the peer does not tell (NET_TRACEBACK=none)"}
    text = _text_of(error)
    described["text"] = text[-MAX_BRIEF:] if brief else text
    if not brief:
        # The containers around a value, such as the description and its args. Those of related
        # exceptions are in a list besides.
        described.update(_contents(error, 3, limits))
        _add_related(error, described, limits)
    if detail == "full":
        described["traceback"] = _traceback_of(error)
    return described


def _names(error: BaseException) -> List[Name]:
    """Module and name of the classes along the MRO, without those that every exception has."""
    if is_a(error, _Rebuilt):
        # It came from another peer; what matters is the classes that it had there.
        found: List[Name] = dict_of(error)["_described"].names
        return found
    names = [name_of(cls) for cls in mro(type(error))[:MAX_NAMES]
             if cls is not BaseException and cls is not object]
    return [(module[:MAX_NAME], name[:MAX_NAME]) for module, name in names] \
        or [("builtins", "BaseException")]


def _contents(error: BaseException, around: int, limits: Limits) -> Dict[str, Any]:
    """The values that an exception holds."""
    travels = functools.partial(_travels, depth=around, limits=limits)
    args = args_of(error)[:1] if is_group(error) else args_of(error)
    portable = [travels(value) for value in args]
    contents: Dict[str, Any] = {
        "args": [value if fine else _shown(value) for value, fine in zip(args, portable)],
        "members": {name: value for name, value in _members(error) if travels(value)},
        "attributes": {name: value for name, value in _attributes(error) if travels(value)},
    }
    if _has_own_repr(type(error)) or not all(portable):
        shown = _repr_of(error)
        if shown is not None:
            contents["repr"] = shown
    return contents


def _has_own_repr(cls: type) -> bool:
    owner = owner_of(cls, "__repr__")
    return owner is not None and not is_builtin(owner)


def _add_related(error: BaseException, described: Dict[str, Any], limits: Limits) -> None:
    """Describe the exceptions that an exception is linked with, nearest first."""
    found: List[BaseException] = [error]
    descriptions = [described]
    places = {id(error): 0}

    def place(other: Optional[BaseException]) -> Optional[int]:
        if other is None or is_a(other, _RemoteTraceback):
            return None
        if id(other) not in places and len(found) <= MAX_GROUP:
            places[id(other)] = len(found)
            found.append(other)
        return places.get(id(other))

    for one in found:  # grows on the way
        if one is not error:
            descriptions.append({"types": [list(name) for name in _names(one)],
                                 "text": _text_of(one), **_contents(one, 5, limits)})
        links: Dict[str, Any] = {
            "cause": place(cause_of(one)), "context": place(context_of(one)),
            "suppress": is_context_suppressed(one) or None}
        if is_group(one):
            places_in = [place(inner) for inner in inner_of(one)]
            links["exceptions"] = [number for number in places_in if number is not None]
        else:
            args = [[at, _places(value, place)] for at, value in enumerate(args_of(one))]
            links["in_args"] = [pair for pair in args if pair[1] is not None] or None
        held = {name: _places(value, place) for name, value in [*_members(one), *_attributes(one)]}
        links["held"] = {name: found for name, found in held.items() if found is not None} or None
        descriptions[-1].update({name: link for name, link in links.items() if link is not None})
    if len(descriptions) > 1:
        described["related"] = descriptions[1:]


def _places(value: Any, place: Callable[[Any], Optional[int]]) -> Any:
    """The place of an exception, or those of several in a list or tuple; None for anything else."""
    if is_a(value, BaseException):
        return place(value)
    if type(value) in (list, tuple) and value and all([is_a(one, BaseException) for one in value]):
        places = [place(one) for one in value]
        return None if None in places else type(value)(places)
    return None


def _attributes(error: BaseException) -> Iterator[Tuple[str, Any]]:
    for name, value in list(dict_of(error).items()):
        if _is_attribute(name):
            yield name, value


def _is_attribute(name: Any) -> bool:
    return type(name) is str and name not in _RESERVED \
        and (not name.startswith("__") or name == "__notes__")


def _travels(value: Any, depth: int, limits: Limits) -> bool:
    try:
        Packer(limits).tag(value, depth)
        return True
    except Exception:
        return False


def _shown(value: Any) -> str:
    try:
        return printable(repr(value))
    except Exception:
        return f"<{type(value).__name__}>"


def _text_of(error: BaseException) -> str:
    try:
        return str.__str__(str(error))  # what __str__ gives may be of a class of its own
    except BaseException as problem:  # even a __str__ may call sys.exit
        return f"{_NO_TEXT}: {type(problem).__name__}>"


def _repr_of(error: BaseException) -> Optional[str]:
    try:
        return str.__str__(repr(error))[:MAX_REPR]
    except BaseException:
        return None


def from_the_function(found: Optional[TracebackType]) -> Optional[TracebackType]:
    """A traceback without what comes before the function that was called: lines of app-net, and of
    the executor or loop that ran it."""
    called = place = found.tb_next if found else None  # the first one is ours for certain
    while place is not None and _is_a_caller(place.tb_frame.f_globals.get("__name__")):
        place = place.tb_next
    return place or called


def _is_a_caller(module: object) -> bool:
    return type(module) is str and module.startswith(_CALLERS)


def _traceback_of(error: BaseException) -> str:
    called = from_the_function(traceback_of(error))
    try:
        if _is_too_much_to_show(error):
            text = "".join(["Traceback (most recent call last):\n", *traceback.format_tb(called),
                            f"{type(error).__name__}: {_text_of(error)}\n"])
        else:
            text = "".join(traceback.format_exception(type(error), error, called))
    except Exception as problem:
        text = f"<no traceback: {type(problem).__name__}>"
    return text[-MAX_TRACEBACK:]


def _is_too_much_to_show(error: BaseException) -> bool:
    """Whether an exception is linked with so many that to write them out would take long."""
    left = [error]
    chained: Set[int] = set()
    shown = 0
    while left and shown <= MAX_SHOWN:
        one = left.pop()
        shown += 1
        if is_group(one):
            left.extend(inner_of(one))
        for other in (cause_of(one), context_of(one)):
            if other is not None and id(other) not in chained:
                chained.add(id(other))
                left.append(other)
    return shown > MAX_SHOWN


def _members(error: BaseException) -> Iterator[Tuple[str, Any]]:
    """Attributes outside of ``__dict__``, such as ``filename`` or those of ``__slots__``."""
    for name, descriptor in members_of(type(error)).items():
        value = _value_of(descriptor, error)
        if value is not None:
            yield name, value


def _value_of(descriptor: Any, error: BaseException) -> Any:
    try:
        return descriptor.__get__(error)
    except (AttributeError, TypeError):  # it has none yet
        return None


# ------------------------------------------------------------------------------- and back again


class Origin(NamedTuple):
    """What a rebuilt exception was made of, so that it can be copied, pickled and sent on.

    :ivar again: makes another one from ``parts``.
    :ivar names: modules and names of the classes along the remote MRO.
    :ivar text: its ``str()``, and ``repr`` its ``repr()``, as they were there; None if that is
        made here.
    :ivar args: the args that it had at first.
    :ivar held: the attributes that are exceptions, as it had them at first.
    """

    again: Any
    parts: Tuple[Any, ...]
    names: List[Name]
    text: str
    repr: Optional[str]
    args: Tuple[Any, ...]
    held: Dict[str, Any] = {}


def rebuild(described: Dict[str, Any], peer: object = None, tag: bytes = b"",
            place: int = 0) -> RemoteError:
    """The matching exception: a RemoteError and also of the remote class, or its nearest base.

    :param place: which of the exceptions of the description; 0 for the outermost.
    :raises ValueError: the description makes no sense.
    """
    parts = [an_object(described), *a_list(described.get("related", []), 0, MAX_GROUP)]
    shown = printable_block(_text_in(described, "traceback"), MAX_TRACEBACK)
    errors = _Errors(described, peer, tag).all(list(map(_checked, parts)))
    _link(errors, parts)
    for error, part in zip(errors, parts):
        _hold(error, part, errors)
    error = errors[place]
    dict_of(errors[0])["traceback"] = shown
    if peer is not None or shown:
        set_cause(_shown_first(errors[0]), _RemoteTraceback(_place_of(peer), shown))
    return error


class _RemoteTraceback(Exception):
    """Is printed as the remote traceback and where it comes from, above the error that it
    caused."""

    def __str__(self) -> str:
        peer, shown = self.args
        where = f"on the peer {peer}" if peer else "on another peer"
        return f"{where}\n\n{shown.rstrip()}\n" if shown else f"{where}, which sent no traceback\n"


# As it is printed.
_RemoteTraceback.__module__, _RemoteTraceback.__qualname__ = "net", "RemoteTraceback"


def _place_of(peer: Any) -> str:
    if peer is None:
        return ""
    try:
        return place_text(address_of(peer))
    except Exception:
        return printable(repr(peer))


def _shown_first(error: BaseException) -> BaseException:
    """The exception that Python shows first of those above an exception."""
    seen = {id(error)}
    while True:
        before = cause_of(error)
        if before is None and not is_context_suppressed(error):
            before = context_of(error)
        if before is None or id(before) in seen:
            return error
        error = before
        seen.add(id(error))


def _checked(described: Any) -> Dict[str, Any]:
    """The parts of a description, checked to have the types that they must have."""
    an_object(described)
    names = [(module, name) for module, name in map(_name, a_list(described["types"])[:MAX_NAMES])
             if len(module) <= MAX_NAME and len(name) <= MAX_NAME]
    if not names:
        raise Malformed("an exception without a class")
    attributes = dict(an_object(described.get("attributes", {})))
    if not _are_notes(attributes.get("__notes__")):
        del attributes["__notes__"]
    members = dict(an_object(described.get("members", {})))
    members.pop("__notes__", None)  # it is kept in the dict
    return {
        "names": names, "text": a_text(described["text"]),
        "repr": _text_in(described, "repr") or None,
        "args": tuple(a_list(described.get("args", []))), "attributes": attributes,
        "members": members,
        "exceptions": [a_whole(place) for place in
                       a_list(described.get("exceptions", []), 0, MAX_GROUP)]}


def _name(parts: Any) -> Name:
    module, name = map(a_text, a_list(parts, 2, 2))
    return module, name


def _text_in(described: Dict[str, Any], name: str) -> str:
    return a_text(described.get(name, ""))


def _are_notes(notes: Any) -> bool:
    # Python writes out whatever can be iterated.
    return notes is None or type(notes) is list and len(notes) <= MAX_NOTES \
        and {str}.issuperset(map(type, notes))


class _Errors:
    """Makes the exceptions of a description, those of a group before the group."""

    def __init__(self, described: Dict[str, Any], peer: object, tag: bytes) -> None:
        self._described = described
        self._peer = peer
        self._tag = tag
        self._made: Dict[int, RemoteError] = {}
        # How many Python writes out for each, and how many more there may be in groups.
        self._shown: Dict[int, int] = {}
        self._left = MAX_SHOWN

    def all(self, parts: Sequence[Dict[str, Any]]) -> List[RemoteError]:
        """The exceptions by their places.

        :raises Malformed: a group contains itself.
        """
        left = list(range(len(parts)))[::-1]
        while left:
            waiting = [place for place in left if not self._make(place, parts[place])]
            if len(waiting) == len(left):
                raise Malformed("a group of exceptions that is in itself")
            left = waiting
        return [self._made[place] for place in range(len(parts))]

    def _make(self, place: int, part: Dict[str, Any]) -> bool:
        inner = [self._made.get(other) for other in part["exceptions"]]
        if None in inner:
            return False
        part["inner"] = self._bounded(place, part["exceptions"], inner)
        error = self._made[place] = _matching(part)
        dict_of(error).update(traceback="", peer=self._peer, tag=self._tag)
        if is_a(error, _Rebuilt):
            dict_of(error)["_described"] = Origin(
                rebuild, (self._described, self._peer, self._tag, place), part["names"],
                part["text"], part["repr"], args_of(error))
        return True

    def _bounded(self, place: int, places: List[int], inner: List[Any]) -> List[Any]:
        """The exceptions of a group, or as many others in their place: nested groups that hold the
        same ones many times would be written out without end."""
        shown = sum([self._shown[other] for other in places])
        if shown > self._left:
            inner = [RemoteError("more exceptions than can be shown")] * len(inner)
            shown = len(inner)
        self._shown[place] = 1 + shown
        self._left -= shown
        return inner


def _matching(part: Dict[str, Any]) -> RemoteError:
    """The exception of the first class that is possible: the known one, then its bases."""
    names = part["names"]
    known = None
    if names[0] != REMOTE_ERROR:  # over several hops it stays what it is
        known = next((cls for cls in map(find_loaded, names) if cls is not None), None)
    for cls in () if known is None else mro(known):
        if derives(cls, Exception):
            try:
                return _instance(matching_class(cls, names[0], _sent(cls, part)), part)
            except Exception as problem:  # of a layout that cannot be combined, final, ...
                if not is_of_the_data(problem):
                    raise
    return _plain(part)


def _sent(cls: type, part: Dict[str, Any]) -> Tuple[str, ...]:
    return ("__repr__",) if part["repr"] is not None or _has_own_repr(cls) else ()


def _plain(part: Dict[str, Any]) -> RemoteError:
    """An error for what is no Exception, or has no class that is known here."""
    name, text = part["names"][0], part["text"]
    if name != REMOTE_ERROR:
        text = f"the function ended with {printable(name[1])}: {text}"
    return RemoteError(text)


def _instance(cls: Any, part: Dict[str, Any]) -> RemoteError:
    base = constructor_of(cls)
    args = part["args"]
    if is_builtin_group(base):
        message = a_text(args[0]) if args else ""
        # It keeps both as its args: CPython 3.13.15 reads the second one without checking how many
        # there are.
        error = base.__new__(cls, message, part["inner"] or [RemoteError("unknown")])
    else:
        try:
            error = base.__new__(cls, *args)
            base.__init__(error, *args)
        except Exception as problem:
            if not is_of_the_data(problem):
                raise
            error = base.__new__(cls)
        set_args(error, args)
    _restore_state(error, part)
    return error  # type: ignore[no-any-return]


def is_builtin_group(cls: type) -> bool:
    return GROUP is not None and derives(cls, GROUP)


def _restore_state(error: RemoteError, part: Dict[str, Any]) -> None:
    members = part["members"]
    for name, descriptor in members_of(type(error)).items():
        value = members.pop(name, None)
        # Also where none was sent: the constructor may have made a value from the arguments.
        if value is not _value_of(descriptor, error):
            _set(descriptor, error, value)
    # What a class that is not known here kept outside of its dict becomes an attribute.
    dict_of(error).update({name: value for name, value in {**members, **part["attributes"]}.items()
                           if _is_attribute(name)})
    _make_sound(error)


def _set(descriptor: Any, error: BaseException, value: Any) -> None:
    try:
        descriptor.__set__(error, value)
    except (AttributeError, TypeError, ValueError, OverflowError):
        pass  # not settable in this version of Python


def _make_sound(error: RemoteError) -> None:
    """Remove, of what was set, what would crash Python."""
    members = members_of(type(error))
    if any(is_a(error, cls) for cls in _UNICODE_ERRORS):
        _keep_in_bounds(error, members)
    elif is_a(error, SyntaxError):
        _keep_showable(error, members)
    elif is_a(error, NameError) or is_a(error, AttributeError) or is_a(error, ImportError):
        # Python looks for similar names when it shows one.
        if "name" in members and not _is_comparable(_value_of(members["name"], error)):
            members["name"].__set__(error, None)


def _is_comparable(name: Any) -> bool:
    """Whether Python can look for names that are similar to this: from 3.12 on it encodes it."""
    try:
        return type(name) is str and name.encode() is not None
    except UnicodeEncodeError:
        return False


def _keep_showable(error: Any, members: Dict[str, Any]) -> None:
    """Bound what Python shows of a syntax error: it marks the columns without checking them."""
    if type(_value_of(members["text"], error)) is not str:
        members["text"].__set__(error, None)
    for name in _POSITIONS:
        value = _value_of(members[name], error) if name in members else None
        if value is not None and not (type(value) is int and abs(value) <= MAX_POSITION):
            members[name].__set__(error, None)


def _keep_in_bounds(error: Any, members: Dict[str, Any]) -> None:
    """Python reads memory at ``object[start]`` without checking its type or length."""
    wanted = bytes if is_a(error, UnicodeDecodeError) else str
    whole = _value_of(members["object"], error)
    positions = range(len(whole) + 1) if type(whole) is wanted else ()
    if any(_value_of(members[name], error) not in positions for name in ("start", "end")):
        for name, value in (("object", wanted()), ("start", 0), ("end", 0)):
            members[name].__set__(error, value)


def _link(errors: Sequence[RemoteError], parts: Sequence[Dict[str, Any]]) -> None:
    """Set causes and contexts, except those that would make a cycle."""
    before: List[List[int]] = [[] for _ in errors]
    for place, part in enumerate(parts):
        for name, setter in (("cause", set_cause), ("context", set_context)):
            other = part.get(name)
            if other is None or not 0 <= a_whole(other) < len(errors):
                continue
            if not _leads_to(before, other, place):
                before[place].append(other)
                setter(errors[place], errors[other])
        if part.get("suppress") is True:
            suppress_context(errors[place], True)


def _leads_to(before: Sequence[List[int]], start: int, end: int) -> bool:
    left, seen = [start], {start}
    while left:
        place = left.pop()
        if place == end:
            return True
        left.extend(other for other in before[place] if other not in seen)
        seen.update(before[place])
    return False


def _hold(error: RemoteError, part: Dict[str, Any], errors: Sequence[RemoteError]) -> None:
    """Set the attributes that are exceptions, and put those among the args in their places."""
    origin = dict_of(error).get("_described")
    in_args = [a_list(pair, 2, 2) for pair in a_list(part.get("in_args", []), 0, MAX_GROUP)]
    # They come with a repr. Python's own would write out what they hold, for each way to it.
    if in_args and origin is not None and origin.repr is not None and not is_group(error):
        args = list(args_of(error))
        for at, place in in_args:
            if not 0 <= a_whole(at) < len(args):
                raise Malformed("not the place of an argument")
            args[at] = _at(place, errors)
        set_args(error, tuple(args))
    held = {name: _at(place, errors) for name, place in an_object(part.get("held", {})).items()
            if _is_attribute(name) and name != "__notes__"}
    members = members_of(type(error))
    for name, value in held.items():
        if name in members:
            _set(members[name], error, value)
        else:
            dict_of(error)[name] = value
    if held:
        _make_sound(error)
    if origin is not None:
        dict_of(error)["_described"] = origin._replace(args=args_of(error), held=held)


def _at(place: Any, errors: Sequence[RemoteError]) -> Any:
    if type(place) in (list, tuple):
        return type(place)([_at(a_whole(one), errors) for one in place])
    if not 0 <= a_whole(place) < len(errors):
        raise Malformed("not the place of an exception")
    return errors[place]


def throw(error: BaseException) -> None:
    """Raise a rebuilt exception, with the context that it had there.

    Python makes the exception that is being handled here the context of the one that is raised.
    Instead, that is put before the first exception there, as if the function had been called here.
    """
    context = context_of(error)
    try:
        raise error
    finally:
        handled = context_of(error)
        if context is not None and handled is not context:
            set_context(error, context)
            first = _first_context(context, handled)
            if handled is not None and first is not handled:
                set_context(first, handled)


def _first_context(error: BaseException, end: Optional[BaseException]) -> BaseException:
    """The first exception of a chain, or ``end`` if that is in it: an error may be raised again."""
    while context_of(error) is not None and error is not end:
        error = context_of(error)
    return error
