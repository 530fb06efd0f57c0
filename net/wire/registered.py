"""Classes that an application lets travel: dataclasses, enums and named tuples.

The wire names a class; only classes that were registered here under that name are ever made.
"""
from __future__ import annotations

import builtins
import dataclasses
import enum
from typing import Any, Dict, Optional, Tuple

from ..errors import ValueNotSupported
from ..identity import public_module

#: Name on the wire -> class, and back. Filled by ``@net.value``, never by the wire.
CLASSES: Dict[str, type] = {}
NAMES: Dict[type, str] = {}


def register(cls: type, name: Optional[str]) -> type:
    """Let values of a class travel under a name, ``module.qualified name`` by default.

    :raises TypeError: neither a dataclass, an enum nor a named tuple, a dataclass with a base such
        as dict or Exception, or the name is taken.
    """
    if not isinstance(cls, type) or not (dataclasses.is_dataclass(cls) or is_enum(cls)
                                         or _is_named_tuple(cls)):
        raise TypeError(f"{cls!r} is neither a dataclass, an enum nor a named tuple")
    if name == "":
        raise TypeError("a name must not be empty")
    base = next(base for base in cls.__mro__ if vars(builtins).get(base.__name__) is base)
    if base is not object and not is_enum(cls) and not _is_named_tuple(cls):
        raise TypeError(f"{cls!r} is also a {base.__name__}, and holds more than its fields")
    if name is None:
        name = ".".join(_origin(cls))
    known = CLASSES.get(name)
    if known is not None and _origin(known) != _origin(cls):
        raise TypeError(f"the name {name!r} is taken by {known!r}")
    CLASSES[name] = cls
    NAMES[cls] = name
    return cls


def take_apart(value: Any) -> Dict[str, Any]:
    """The parts of a value of a registered class, by name."""
    cls = type(value)
    if is_enum(cls):
        # A flag may be a combination that has no name.
        return {"value": value._value_} if isinstance(value, enum.Flag) else {"name": value._name_}
    if _is_named_tuple(cls):
        return dict(zip(cls._fields, value))
    try:
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(cls)}
    except AttributeError as problem:
        raise ValueNotSupported("", f"{cls.__qualname__} has a field without a value: "
                                    f"{problem}") from None


def put_together(name: str, parts: Dict[str, Any]) -> Any:
    """A value of a registered class from its parts. Neither ``__init__`` nor ``__post_init__``
    run: the value existed elsewhere and is not made anew.

    :raises ValueNotSupported: the class is not registered here, or has other parts here.
    """
    cls = CLASSES.get(name)
    if cls is None:
        raise ValueNotSupported(name[:200], "arrived, but is not registered here with @net.value")
    if is_enum(cls):
        return _put_enum(cls, parts)
    names = cls._fields if _is_named_tuple(cls) else [f.name for f in dataclasses.fields(cls)]
    if set(names) != set(parts):
        raise ValueNotSupported(name, f"has the parts {', '.join(names)} here, but "
                                      f"{', '.join(parts)} arrived")
    if _is_named_tuple(cls):
        return tuple.__new__(cls, [parts[part] for part in names])
    value = object.__new__(cls)
    for part in names:
        object.__setattr__(value, part, parts[part])
    return value


def _origin(cls: type) -> Tuple[str, str]:
    # The same class again, as when a module is reloaded, is no other class.
    return public_module(cls.__module__), cls.__qualname__


def _put_enum(cls: Any, parts: Dict[str, Any]) -> Any:
    if not issubclass(cls, enum.Flag):
        return cls[parts["name"]]
    if type(parts["value"]) is not int:
        raise ValueError("a flag is a whole number")
    return cls(parts["value"])


def is_enum(cls: type) -> bool:
    """Whether values of a class have no parts: an enum has names."""
    return issubclass(cls, enum.Enum)


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)
