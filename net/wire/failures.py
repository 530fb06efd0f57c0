"""Exceptions on their way: described as JSON values there, matching and raised here.

Only a class that is loaded here already, and is an Exception, is ever used; nothing is imported
and no ``__init__`` of an application's class runs.
"""
from __future__ import annotations

import builtins
import functools
import sys
import traceback
import types
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..errors import NetError, RemoteError
from ..identity import MAIN, printable, printable_block, public_module
from .limits import Limits
from .memo import Memo
from .values import Packer

# Characters of a remote traceback. The end, which says most, is what stays.
MAX_TRACEBACK = 64 * 1024
# Exceptions of a group, and groups in groups, that travel; the traceback text has them all.
MAX_GROUP = 100
MAX_GROUP_DEPTH = 5

# Characters of a text, where the whole description of an exception is too large to travel.
MAX_BRIEF = 2000
# Largest line and column of a syntax error. Python marks as many characters when it shows one.
MAX_POSITION = 1_000_000
# Class names along an MRO, and characters in one.
MAX_NAMES = 50
MAX_NAME = 500

_OURS = frozenset({"traceback", "peer", "tag", "_described"})
_LEFT_OUT = frozenset({"args", "obj", "exceptions", "message", "name_from"})
_POSITIONS = ("lineno", "offset", "end_lineno", "end_offset")
_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_Group = getattr(builtins, "BaseExceptionGroup", None)
_NO_TEXT = "<its text cannot be made"
_REMOTE_ERROR = (RemoteError.__module__, RemoteError.__qualname__)
_UNICODE_ERRORS = (UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError)


def describe(error: BaseException, detail: str = "full", brief: bool = False,
             depth: int = 0, limits: Limits = Limits()) -> Dict[str, Any]:
    """An exception as values that can travel.

    :param detail: ``full``; ``type`` leaves out the traceback; ``none`` also args and text.
    :param brief: leave out the values that it holds, and of a long text all but the end.
    :param depth: number of groups around it.
    """
    described: Dict[str, Any] = {"types": [list(name) for name in _names(error)]}
    if detail == "none":
        return {**described, "text": "the peer does not tell (NET_TRACEBACK=none)"}
    text = _text_of(error)
    described["text"] = text[-MAX_BRIEF:] if brief else text
    if not brief:
        described.update(_contents(error, depth, limits))
    if detail == "full":
        described["traceback"] = _traceback_of(error)
    return described


def rebuild(described: Dict[str, Any], peer: object = None, tag: bytes = b"") -> RemoteError:
    """The matching exception: a RemoteError and also of the remote class, or its nearest base.

    :raises ValueError: the description makes no sense.
    """
    names = _checked_names(described["types"])
    text = str(described["text"])
    described = {**described, "types": names, "text": text}
    plain = names[0] == _REMOTE_ERROR  # over several hops it stays what it is
    known = None if plain else next((cls for cls in map(_loaded, names) if cls is not None), None)
    error = _matching(known, names[0], described) if known is not None else _plain(described)
    error.traceback = printable_block(str(described.get("traceback", "")), MAX_TRACEBACK)
    error.peer = peer
    error.tag = tag
    if known is not None and issubclass(known, NetError) and "ran" in vars(error):
        error.ran = "yes"  # what it says of a call that the function made is in its text
    if error.traceback:
        error.__cause__ = _RemoteTraceback(error.traceback)
    return error


class _Rebuilt(RemoteError):
    """What every matching exception is besides the remote class."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Nothing: an application's class, which stands behind this one, need not know."""


class _RemoteTraceback(Exception):
    """Prints as the remote traceback, above the error that it is the cause of."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0].rstrip()}\n"


def _names(error: BaseException) -> List[Tuple[str, str]]:
    """Module and name of the classes along the MRO, without those that every exception has."""
    if isinstance(error, _Rebuilt):
        # It came from a third peer; what matters is the classes that it had there.
        return [(module, name) for module, name in error.__dict__["_described"]["types"]]
    return [(public_module(str(cls.__module__))[:MAX_NAME], cls.__qualname__[:MAX_NAME])
            for cls in type(error).__mro__[:MAX_NAMES]
            if cls not in (BaseException, object)] or [("builtins", "BaseException")]


def _contents(error: BaseException, depth: int, limits: Limits) -> Dict[str, Any]:
    """The values that an exception holds, and the exceptions of a group."""
    # The containers around a value: description, args, and both again for each group.
    portable = functools.partial(_portable, depth=3 + 2 * depth, limits=limits)
    contents: Dict[str, Any] = {
        "args": [portable(value) for value in _arguments(error)],
        "members": {name: portable(value) for name, value in _members(error)},
        "attributes": {name: portable(value) for name, value in _attributes(error)},
    }
    if _is_group(error) and depth < MAX_GROUP_DEPTH:
        contents["exceptions"] = [
            describe(inner, "type", depth=depth + 1, limits=limits)
            for inner in _inner(error)[:MAX_GROUP]]
    return contents


def _arguments(error: BaseException) -> Tuple[Any, ...]:
    # An application's class may have an attribute of that name.
    args: Tuple[Any, ...] = BaseException.args.__get__(error)  # type: ignore[attr-defined]
    return args[:1] if _is_group(error) else args


def _is_group(error: Any) -> bool:
    return _Group is not None and isinstance(error, _Group)


def _inner(group: Any) -> Tuple[Any, ...]:
    inner: Tuple[Any, ...] = _Group.exceptions.__get__(group)  # type: ignore[union-attr]
    return inner


def _attributes(error: BaseException) -> Iterator[Tuple[str, Any]]:
    for name, value in list(vars(error).items()):
        if _is_attribute(name) and not (name in _OURS and isinstance(error, RemoteError)):
            yield name, value


def _is_attribute(name: Any) -> bool:
    return type(name) is str and (not name.startswith("__") or name == "__notes__")


def _portable(value: Any, depth: int, limits: Limits) -> Any:
    """The value if it can travel, else its repr."""
    try:
        Packer(limits).tag(value, depth)
        return value
    except Exception:
        try:
            return printable(repr(value))
        except Exception:
            return f"<{type(value).__name__}>"


def _text_of(error: BaseException) -> str:
    try:
        return str.__str__(str(error))  # what __str__ gives may be of a class of its own
    except BaseException as problem:  # in a __str__, too, somebody may call sys.exit
        return f"{_NO_TEXT}: {type(problem).__name__}>"


def _traceback_of(error: BaseException) -> str:
    # The first entry is the line of ours that called the function.
    called = error.__traceback__.tb_next if error.__traceback__ else None
    try:
        text = "".join(traceback.format_exception(type(error), error, called))
    except Exception as problem:
        text = f"<no traceback: {type(problem).__name__}>"
    return text[-MAX_TRACEBACK:]


def _members(error: BaseException) -> Iterator[Tuple[str, Any]]:
    """Attributes outside of ``__dict__``, such as ``filename`` or those of ``__slots__``."""
    for name, descriptor in _descriptors[type(error)].items():
        value = _value_of(descriptor, error)
        if value is not None:
            yield name, value


def _value_of(descriptor: Any, error: BaseException) -> Any:
    try:
        return descriptor.__get__(error)
    except Exception:  # it has none yet
        return None


def _find_descriptors(cls: type) -> Dict[str, Any]:
    # obj is the object that lacks an attribute: any object of the application. With name_from,
    # Python 3.12 imports the module of an ImportError to suggest other names when it shows it.
    return {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()
            if isinstance(value, _DESCRIPTORS) and not name.startswith("__")
            and name not in _LEFT_OUT}


_descriptors = Memo(_find_descriptors, 256)


def _checked_names(names: Any) -> List[Tuple[str, str]]:
    checked = [(module, name) for module, name in names[:MAX_NAMES]
               if isinstance(module, str) and isinstance(name, str)
               and len(module) <= MAX_NAME and len(name) <= MAX_NAME]
    if not checked:
        raise ValueError("an exception without a class")
    return checked


def _loaded(name: Tuple[str, str]) -> Optional[type]:
    """An exception class that is loaded here; None if there is none, or it is no Exception."""
    module, qualified = name
    for found in _modules(module):
        for part in qualified.split("."):
            found = _own_names(found).get(part)
        # type() tells the truth; an object may claim any class when isinstance asks it.
        if issubclass(type(found), type) and issubclass(found, Exception) \
                and found not in (Exception, RemoteError, NetError) \
                and not issubclass(found, _Rebuilt):
            return found  # type: ignore[no-any-return]
    return Exception if name == ("builtins", "Exception") else None


def _modules(name: str) -> List[Any]:
    """The loaded modules of a name: the main program is known by the one that others import."""
    main = sys.modules.get("__main__")
    if name in MAIN:
        return [main]
    loaded = sys.modules.get(name)
    return [main, loaded] if name == public_module("__main__") else [loaded]


def _own_names(owner: Any) -> Any:
    # A module may import on any access of an attribute, that of __dict__ included.
    try:
        names = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        return {}
    return names if isinstance(names, (dict, types.MappingProxyType)) else {}


def _plain(described: Dict[str, Any]) -> RemoteError:
    """An error for what is no Exception, or of no class that is known here."""
    name, text = described["types"][0], described["text"]
    if name != _REMOTE_ERROR:
        text = f"the function ended with {printable(name[1])}: {text}"
    return RemoteError(text)


def _matching(known: type, name: Tuple[str, str], described: Dict[str, Any]) -> RemoteError:
    error = _instance(_matching_classes[known, name, False], described)
    text = _text_of(error)
    if text != described["text"] or text.startswith(_NO_TEXT):
        # The class is not known here, or makes its text of what did not travel.
        error = _instance(_matching_classes[known, name, True], described)
    return error


def _make_matching_class(key: Tuple[type, Tuple[str, str], bool]) -> type:
    """A class that is a RemoteError and a known class, or the nearest base that goes with it.

    :param key: the known class, the name that was sent, and whether its text is the one that was
        sent.
    """
    known, name, as_sent = key
    body: Dict[str, Any] = {"__module__": printable(name[0]), "__qualname__": printable(name[1]),
                            "__doc__": known.__doc__}
    if as_sent:
        body["__str__"] = lambda self: self.__dict__["_described"]["text"]
    short = printable(name[1].rpartition(".")[2])
    for base in known.__mro__:
        bases = (_Rebuilt,) if issubclass(_Rebuilt, base) else (_Rebuilt, base)
        try:
            return type(short, bases, body)
        except Exception:
            continue  # the class forbids it, or its layout cannot be combined
    raise AssertionError("Exception can always be combined")


_matching_classes = Memo(_make_matching_class, 256)


def _instance(cls: type, described: Dict[str, Any]) -> RemoteError:
    base = _constructor(cls)
    args = tuple(described.get("args", ()))
    error: RemoteError
    if _Group is not None and issubclass(cls, _Group):
        inner = [rebuild(one) for one in described.get("exceptions", ())]
        error = base.__new__(cls, str(args[0]) if args else "", inner or [RemoteError("unknown")])
    else:
        try:
            error = base.__new__(cls, *args)
            base.__init__(error, *args)
        except Exception:
            error = base.__new__(cls)
        error.args = args
    error.__dict__["_described"] = described
    _restore_state(error, described)
    return error


def _constructor(cls: Any) -> Any:
    """The class of Python itself whose objects are laid out like those of ``cls``.

    Its constructor may run; an application's may not.
    """
    while vars(builtins).get(cls.__name__) is not cls:
        cls = cls.__base__
    return cls


def _restore_state(error: RemoteError, described: Dict[str, Any]) -> None:
    members = dict(described.get("members", {}))
    for name, descriptor in _descriptors[type(error)].items():
        value = members.pop(name, None)
        # Without a value, too: the constructor may have made one of the arguments.
        if value is not _value_of(descriptor, error):
            try:
                descriptor.__set__(error, value)
            except (AttributeError, TypeError, ValueError, OverflowError):
                pass  # not settable in this version of Python
    for name, value in members.items():
        if _is_attribute(name) and name not in _LEFT_OUT:
            error.__dict__[name] = value
    for name, value in dict(described.get("attributes", {})).items():
        if _is_attribute(name) and name not in _OURS:
            error.__dict__[name] = value
    _make_sound(error)


def _make_sound(error: RemoteError) -> None:
    """Take what Python cannot bear out of what was set."""
    if isinstance(error, _UNICODE_ERRORS):
        _keep_in_bounds(error)
    elif isinstance(error, SyntaxError):
        _keep_showable(error)


def _keep_showable(error: Any) -> None:
    """Python shows the line of a syntax error and marks its columns without a look at them."""
    if type(error.text) is not str:
        error.text = None
    for name in _POSITIONS:
        value = getattr(error, name, None)
        if value is not None and not (type(value) is int and abs(value) <= MAX_POSITION):
            setattr(error, name, None)


def _keep_in_bounds(error: Any) -> None:
    """Python reads memory at ``object[start]`` without a look at its type or length."""
    wanted = bytes if isinstance(error, UnicodeDecodeError) else str
    whole = getattr(error, "object", None)
    positions = range(len(whole) + 1) if type(whole) is wanted else ()
    if error.start not in positions or error.end not in positions:
        error.object, error.start, error.end = wanted(), 0, 0


def _reduced(error: RemoteError) -> Any:
    described = error.__dict__.get("_described")
    if described is None:
        return NetError.__reduce__(error)
    return rebuild, (described, error.peer, error.tag)


# Set here because errors.py, the lowest floor, knows nothing of descriptions.
RemoteError.__reduce__ = _reduced  # type: ignore[method-assign,assignment]
