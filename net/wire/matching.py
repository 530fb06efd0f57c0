"""Classes of exceptions: those that are loaded here, and those that match a remote one.

No code of an application runs here. Its classes, metaclasses and instances may run code on any
access, so everything is read and set by Python's own slots and descriptors.
"""
from __future__ import annotations

import abc
import builtins
import operator
import sys
import types
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..errors import NetError, RemoteError
from ..identity import MAIN, PROGRAMS, printable, program_of, public_module
from .memo import Memo

#: Module and qualified name of a class.
Name = Tuple[str, str]

REMOTE_ERROR: Name = (RemoteError.__module__, RemoteError.__qualname__)
GROUP: Any = getattr(builtins, "BaseExceptionGroup", None)

_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType)
# obj is the object that lacks an attribute: any object of the application. With name_from, Python
# 3.12 imports the module of an ImportError, so that it can suggest names when it shows the error.
_NO_MEMBERS = frozenset({"args", "obj", "exceptions", "message", "name_from"})

# ------------------------------------------------------------------------ below what can be changed

mro: Callable[[type], Tuple[type, ...]] = vars(type)["__mro__"].__get__
names_in: Callable[[type], Any] = vars(type)["__dict__"].__get__
_name_of: Callable[[type], str] = vars(type)["__name__"].__get__
_qualified_name_of: Callable[[type], str] = vars(type)["__qualname__"].__get__
_base_of: Callable[[type], Any] = vars(type)["__base__"].__get__

_OF_EXCEPTIONS = vars(BaseException)
dict_of: Callable[[BaseException], Dict[Any, Any]] = _OF_EXCEPTIONS["__dict__"].__get__
args_of: Callable[[BaseException], Tuple[Any, ...]] = _OF_EXCEPTIONS["args"].__get__
set_args: Callable[[BaseException, Tuple[Any, ...]], None] = _OF_EXCEPTIONS["args"].__set__
traceback_of: Callable[[BaseException], Any] = _OF_EXCEPTIONS["__traceback__"].__get__
cause_of: Callable[[BaseException], Any] = _OF_EXCEPTIONS["__cause__"].__get__
set_cause: Callable[[BaseException, Any], None] = _OF_EXCEPTIONS["__cause__"].__set__
context_of: Callable[[BaseException], Any] = _OF_EXCEPTIONS["__context__"].__get__
set_context: Callable[[BaseException, Any], None] = _OF_EXCEPTIONS["__context__"].__set__
is_context_suppressed: Callable[[BaseException], bool] = \
    _OF_EXCEPTIONS["__suppress_context__"].__get__
suppress_context: Callable[[BaseException, bool], None] = \
    _OF_EXCEPTIONS["__suppress_context__"].__set__


def derives(cls: type, base: type) -> bool:
    """Whether a class is another one or derived from it, whatever its metaclass says."""
    return type.__subclasscheck__(base, cls)


def is_a(thing: Any, cls: type) -> bool:
    """Whether an object is of a class, whatever its ``__class__`` says."""
    return derives(type(thing), cls)


def is_group(error: BaseException) -> bool:
    return GROUP is not None and is_a(error, GROUP)


def inner_of(group: BaseException) -> Tuple[BaseException, ...]:
    found: Tuple[BaseException, ...] = GROUP.exceptions.__get__(group)
    return found


def is_builtin(cls: type) -> bool:
    return vars(builtins).get(_name_of(cls)) is cls


def owner_of(cls: type, name: str) -> Optional[type]:
    """The class along the MRO that has an attribute of that name."""
    return next((base for base in mro(cls) if name in names_in(base)), None)


class _Same:
    """A class as a key, compared by identity: an application's metaclass may change how it is
    compared itself."""

    def __init__(self, cls: type) -> None:
        self.cls = cls

    def __hash__(self) -> int:
        return id(self.cls)

    def __eq__(self, other: Any) -> bool:
        return self.cls is other.cls


def members_of(cls: type) -> Dict[str, Any]:
    """The descriptors of what instances hold outside of their dict, by name."""
    found: Dict[str, Any] = _members[_Same(cls)]
    return found


def _find_members(same: _Same) -> Dict[str, Any]:
    members = {}
    for base in reversed(mro(same.cls)):
        # Those of an application's class that is written in C are left alone.
        if is_builtin(base) or "__slots__" in names_in(base):
            members.update({name: value for name, value in list(names_in(base).items())
                            if type(value) in _DESCRIPTORS and not name.startswith("__")
                            and name not in _NO_MEMBERS})
    return members


_members = Memo(_find_members, 256)


def name_of(cls: type) -> Name:
    module = names_in(cls).get("__module__", "builtins")
    if type(module) is not str:
        module = "builtins"
    qualified = _qualified_name_of(cls)
    namespace = program_of(qualified, cls) if module in MAIN else None
    return public_module(module, namespace), qualified


# ------------------------------------------------------------------------------- loaded classes


def find_loaded(name: Name) -> Optional[type]:
    """The exception class of this name that is loaded here; None if there is none, or it is no
    Exception."""
    module, qualified = name
    first, *rest = qualified.split(".")
    for names in _namespaces(module):
        found = names.get(first)
        for part in rest:
            found = _own_names(found).get(part)
        if is_a(found, type) and derives(found, Exception) and not derives(found, Rebuilt) \
                and found is not Exception and found is not RemoteError and found is not NetError:
            return found  # type: ignore[no-any-return]
    return Exception if name == ("builtins", "Exception") else None


def _namespaces(name: str) -> List[Any]:
    """The variables of the loaded modules of a name. A main program is also known by the name that
    it would be imported by."""
    main = _own_names(sys.modules.get("__main__"))
    if name in MAIN:
        return [main]
    programs = [PROGRAMS[name]] if name in PROGRAMS else []
    if name == public_module("__main__"):
        programs.append(main)
    return [*programs, _own_names(sys.modules.get(name))]


def _own_names(owner: Any) -> Any:
    # A module may import something on access to any attribute, even to __dict__.
    holder = owner_of(type(owner), "__dict__")
    descriptor: Any = None if holder is None else names_in(holder)["__dict__"]
    if type(descriptor) not in _DESCRIPTORS:
        return {}
    names = descriptor.__get__(owner)
    return names if type(names) in (dict, types.MappingProxyType) else {}


# ------------------------------------------------------------------------------- matching classes


class Rebuilt(RemoteError):
    """The base that every matching exception has besides the remote class.

    Its methods come before those of an application's class, which might need what did not travel.
    ``_described`` holds what came, as an :class:`~net.wire.failures.Origin`.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Do not call the ``__init_subclass__`` of the application's class behind this one."""

    def __str__(self) -> str:
        origin = dict_of(self)["_described"]
        return _as_sent(self, origin.text, "__str__")

    def __reduce__(self) -> Any:
        origin = dict_of(self)["_described"]
        state = {name: value for name, value in dict_of(self).items()
                 if name != "_described" and not (value is origin.held.get(name, origin))}
        return origin.again, origin.parts, state

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Rebuilt.__reduce__(self)

    def __setstate__(self, state: Any) -> None:
        dict_of(self).update(state)

    def __copy__(self) -> Any:
        again, parts, state = Rebuilt.__reduce__(self)
        copied = again(*parts)
        dict_of(copied).update(state)
        return copied

    def __deepcopy__(self, memo: Any) -> Any:
        import copy

        again, parts, state = Rebuilt.__reduce__(self)
        copied = memo[id(self)] = again(*copy.deepcopy(parts, memo))
        dict_of(copied).update(copy.deepcopy(state, memo))
        return copied


def matching_class(known: type, name: Name, sent: Tuple[str, ...]) -> type:
    """A class that is a RemoteError and a known class, named like the remote one.

    :param sent: names of methods that return what the remote ones gave, instead of being run.
    :raises TypeError: the known class cannot be derived from, or not together with ours.
    """
    found: type = _matching_classes[_Same(known), name, sent]
    return found


def _make_matching_class(key: Tuple[_Same, Name, Tuple[str, ...]]) -> type:
    same, (module, qualified), sent = key
    known = same.cls
    body: Dict[str, Any] = {"__module__": printable(module), "__qualname__": printable(qualified)}
    doc = names_in(known).get("__doc__")
    if type(doc) is str:
        body["__doc__"] = doc
    if "__repr__" in sent:
        body["__repr__"] = _sent_repr
    if owner_of(known, "__del__") is not None:
        body["__del__"] = lambda self: None
    if owner_of(known, "__getattr__") is not None:
        body["__getattr__"] = _find_attribute
    bases = (Rebuilt,) if derives(Rebuilt, known) else (Rebuilt, known)
    metaclass = type(known)
    own = [base for base in mro(metaclass) if not derives(abc.ABCMeta, base)]
    if any(name in names_in(base) for base in own for name in ("__new__", "mro")):
        # It may forbid what we are about to do, and asking it would run its code.
        raise TypeError("a metaclass that makes its classes itself")
    make = abc.ABCMeta.__new__ if derives(metaclass, abc.ABCMeta) else type.__new__
    return make(metaclass, printable(qualified.rpartition(".")[2]), bases, body)


def _find_attribute(self: Any, name: str) -> Any:
    """An attribute that the ``__getattr__`` of an application's class makes. What it needs for that
    may not have travelled."""
    try:
        return super(Rebuilt, self).__getattr__(name)
    except AttributeError:
        raise
    except Exception as problem:
        raise AttributeError(f"{name}: {type(problem).__name__}") from None


def _sent_repr(self: Any) -> str:
    shown: Optional[str] = dict_of(self)["_described"].repr
    return _OF_EXCEPTIONS["__repr__"](self) if shown is None else \
        _as_sent(self, shown, "__repr__")


def _as_sent(error: BaseException, text: str, method: str) -> str:
    """The text as it was there, unless the application has changed the args since: then the text
    that the class itself makes."""
    before, now = dict_of(error)["_described"].args, args_of(error)
    # PyPy makes a tuple for each look at the args.
    if now is not before and not (len(now) == len(before) and all(map(operator.is_, now, before))):
        cls = next(base for base in mro(type(error))
                   if not derives(base, Rebuilt) and method in names_in(base))
        text = names_in(cls)[method](error)
    return text


_matching_classes = Memo(_make_matching_class, 256)


def constructor_of(cls: type) -> Any:
    """The built-in class whose objects are laid out like those of ``cls``.

    Its constructor may run; that of an application's class may not.
    """
    while not is_builtin(cls):
        cls = _base_of(cls)
    return cls
