"""Classes that an application lets travel: dataclasses, enums, named tuples, classes of attrs and
models of pydantic, and others for which it says how to pack them.

The wire names a class; values are made only of a class that was registered here under that name.
"""
from __future__ import annotations

import builtins
import collections
import enum
import functools
import itertools
import operator
import sys
import types
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Tuple

from ..errors import ValueNotSupported
from ..identity import MAIN, printable, program_of, public_module
from .checks import Lacking, Malformed, a_list, a_text, a_whole, an_object
from .memo import Memo

# Combinations of a flag that the wire may leave in memory, some 400 bytes each.
MAX_COMBINATIONS = 64 * 1024
# Looks at members that making the new combinations of a message may take, up to 0.2 s; and looks
# that each combination costs besides. So many are allowed for each MiB of text.
MAX_LOOKS, BESIDES = 1 << 17, 10
# Looks that a short message may take for combinations that Python does not keep: they could come
# again in each message. And how many looks a bit costs that belongs to no member.
FEW_LOOKS, OF_A_BIT = 1 << 14, 2

#: A function of one argument.
Function = Callable[[Any], Any]


class Registry:
    """The classes whose values travel. Filled by ``@net.value``, never by the wire.

    :ivar classes: name on the wire -> class. ``names``: the other way round.
    :ivar packed: class -> what makes a value that can travel from an instance, and what makes an
        instance from that.
    """

    def __init__(self) -> None:
        self.classes: Dict[str, type] = {}
        self.names: Dict[type, str] = {}
        self.packed: Dict[type, Tuple[Function, Function]] = {}


registry = Registry()

_STRING = frozenset({str})


def register(cls: type, name: Optional[str], namespace: Optional[Mapping[str, Any]] = None,
             pack: Optional[Function] = None, unpack: Optional[Function] = None) -> type:
    """Let values of a class travel under a name, ``module.qualified name`` by default.

    :param namespace: the variables of the module that defines it, if they are at hand.
    :param pack: makes a value that can travel from an instance, ``unpack`` an instance from that;
        None to send the fields.
    :raises TypeError: the class holds more than its fields and there is no way to pack it, or the
        name is taken.
    """
    if not isinstance(cls, type):
        raise TypeError(f"{cls!r} is neither a dataclass, an enum nor a named tuple")
    if name == "":
        raise TypeError("a name must not be empty")
    if pack is None and unpack is None:
        if _is_model(cls):
            pack, unpack = _pack_model, functools.partial(_unpack_model, cls)
        else:
            _check(cls)
    elif not callable(pack) or not callable(unpack):
        raise TypeError("pack and unpack are two functions of one argument")
    if name is None:
        name = ".".join(_origin(cls, namespace))
    known = registry.classes.get(name)
    if known is not None and _origin(known) != _origin(cls, namespace):
        raise TypeError(f"the name {name!r} is taken by {known!r}")
    registry.packed.pop(cls, None)
    if pack is not None and unpack is not None:
        registry.packed[cls] = pack, unpack
    registry.classes[name] = cls
    registry.names[cls] = name
    return cls


def _check(cls: type) -> None:
    """Refuse a class whose instances are more than their fields.

    :raises TypeError: it is such a class.
    """
    if not (hasattr(cls, "__dataclass_fields__") or is_enum(cls) or _is_named_tuple(cls)
            or _is_attrs(cls)):
        raise TypeError(f"{cls!r} is neither a dataclass, an enum nor a named tuple, nor of attrs "
                        f"or pydantic; net.value({cls.__name__}, pack=..., unpack=...) says what "
                        f"of it travels")
    base = next(base for base in cls.__mro__ if vars(builtins).get(base.__name__) is base)
    if not is_enum(cls) and not _is_named_tuple(cls) and (base is not object or not _is_plain(cls)):
        raise TypeError(f"{cls!r} is also a {base.__name__}, and holds more than its fields")
    if _keeps_hash(cls):
        raise TypeError(f"{cls!r} keeps its hash beside its fields; without cache_hash=True it can "
                        f"travel")


def _keeps_hash(cls: Any) -> bool:
    """Whether it has the hash method that attrs writes for ``cache_hash=True``. That needs what
    only ``__init__`` makes."""
    code = getattr(cls.__hash__, "__code__", None)
    return "_attrs_cached_hash" in getattr(code, "co_names", ())


def take_apart(value: Any) -> Dict[str, Any]:
    """The parts of a value of a registered class, by name. This may be its own dict, so only read
    it.

    :raises ValueNotSupported: it has attributes besides its fields, or a field without a value.
    """
    cls = type(value)
    if cls in registry.packed:
        return {"packed": registry.packed[cls][0](value)}
    shape: _Shape = _shapes[cls]
    if shape.in_dict:
        held: Dict[str, Any] = value.__dict__
        if held.keys() == shape.known:
            return held  # nearly every dataclass
    if shape.is_enum:
        # A flag may be a combination that has no name.
        return {"value": value._value_} if isinstance(value, enum.Flag) else {"name": value._name_}
    extra = _find_extra(value, shape)
    if extra is not None:
        raise ValueNotSupported("", f"{cls.__qualname__} has the attribute {printable(extra)!r} "
                                    f"besides its fields, which would be lost; make it a field")
    if shape.is_tuple:
        return dict(zip(shape.names, value))
    try:
        return {name: getattr(value, name) for name in shape.names}
    except AttributeError as problem:
        raise ValueNotSupported("", f"{cls.__qualname__} has a field without a value: "
                                    f"{problem}") from None


def take_apart_all(values: List[Any]) -> Optional[Tuple[Tuple[str, ...], List[List[Any]]]]:
    """The names of the parts of values of one class, and for each part a list with that of all
    values. None for a class whose values have no parts, or are packed.

    :raises ValueNotSupported: as :func:`take_apart` does.
    """
    cls = type(values[0])
    if cls in registry.packed or not _shapes[cls].names:
        return None
    shape: _Shape = _shapes[cls]
    held = [value.__dict__ for value in values] if shape.in_dict else []
    if not held or not all([one.keys() == shape.known for one in held]):
        held = list(map(take_apart, values))
    return shape.names, [[one[name] for one in held] for name in shape.names]


class _Shape(NamedTuple):
    """What values of a class hold.

    :ivar names: of the fields, in order; ``known``: as a set.
    :ivar sent: the names of the fields, and of what the wire has besides them.
    :ivar slots: slots that are no fields, by name.
    :ivar bits: for a flag, the bits that its members have.
    :ivar in_dict: whether all that a value holds is in its dict.
    :ivar set_part: sets a field, without running code of the class.
    """

    names: Tuple[str, ...]
    known: FrozenSet[str]
    sent: FrozenSet[str]
    slots: Dict[str, Any]
    is_enum: bool = False
    bits: int = 0
    is_tuple: bool = False
    in_dict: bool = False
    set_part: Callable[[Any, str, Any], None] = object.__setattr__


def _find_shape(cls: Any) -> _Shape:
    if is_enum(cls):
        bits = functools.reduce(operator.or_, [member._value_ for member in
                                               cls._member_map_.values()], 0) \
            if issubclass(cls, enum.Flag) else 0
        return _Shape((), frozenset(), frozenset(), {}, is_enum=True, bits=bits)
    import dataclasses  # already loaded, if there is such a class

    fields = cls.__attrs_attrs__ if _is_attrs(cls) else () if _is_named_tuple(cls) \
        else dataclasses.fields(cls)
    names = cls._fields if _is_named_tuple(cls) else tuple([field.name for field in fields])
    slots = {name: slot for base in cls.__mro__ for name, slot in vars(base).items()
             if type(slot) is types.MemberDescriptorType and name not in names}
    known = frozenset(names)
    # PyPy has no such offset.
    in_dict = getattr(cls, "__dictoffset__", 0) != 0 and not slots \
        and cls.__getattribute__ is object.__getattribute__ \
        and not any([hasattr(type(vars(base).get(name)), "__set__")
                     for base in cls.__mro__ for name in names])
    return _Shape(names, known, known | {"class"}, slots, is_tuple=_is_named_tuple(cls),
                  in_dict=in_dict, set_part=_setter_of(cls))


def _setter_of(cls: type) -> Callable[[Any, str, Any], None]:
    own = [base for base in cls.__mro__ if "__setattr__" in vars(base)]
    # The builtin one does the same and is quicker, where no class has code of its own for it.
    return setattr if own == [object] else object.__setattr__


_shapes = Memo(_find_shape, 1024)


def _find_extra(value: Any, shape: _Shape) -> Optional[str]:
    """The name of an attribute that is neither a field nor the cache of a property that can compute
    it again.
    """
    attributes = getattr(value, "__dict__", {})
    if not attributes.keys() <= shape.known:
        for name in attributes:
            if name not in shape.known and not _is_cached(getattr(type(value), name, None)):
                return str(name)
    return next((name for name, slot in shape.slots.items() if _has(slot, value)), None)


def _is_cached(attribute: Any) -> bool:
    """Whether it is like functools.cached_property, which keeps its value in the dict."""
    cls = type(attribute)
    return hasattr(cls, "__get__") and not hasattr(cls, "__set__") \
        and not isinstance(attribute, (types.FunctionType, types.MethodType))


def _has(slot: Any, value: Any) -> bool:
    try:
        slot.__get__(value)
        return True
    except AttributeError:
        return False


def _is_plain(cls: Any) -> bool:
    """Whether values are made like any other object, and so hold nothing that cannot be seen
    here."""
    if getattr(cls, "__abstractmethods__", None):
        return True  # there are none
    try:
        object.__new__(cls)
        return True
    except TypeError:
        return False


class Combinations:
    """The combinations of flags in one message that this process does not have yet. Each is made
    once.

    :param size: characters of JSON text.
    """

    def __init__(self, size: int) -> None:
        self._made: Dict[Tuple[str, int], Any] = {}
        self._left = max(MAX_LOOKS, MAX_LOOKS * size >> 20)
        self._left_unkept = max(FEW_LOOKS, MAX_LOOKS * size >> 20)

    def find(self, cls: Any, name: str, value: int) -> Any:
        """The combination of a flag with this value; None if it cannot have that.

        :raises Lacking: there were too many.
        """
        if (name, value) not in self._made:
            bits = _shapes[cls].bits
            if abs(value) >> max(64, bits.bit_length()):
                return None
            looks = BESIDES + len(cls._member_map_)
            self._left -= looks
            if not _is_kept(cls, value):
                self._left_unkept -= looks + OF_A_BIT * (value & ~bits).bit_length()
            if self._left < 0 or self._left_unkept < 0:
                raise Lacking(f"more combinations of {printable(name)} arrived than can be made "
                              f"in time")
            self._made[name, value] = _combine(cls, name, value)
        return self._made[name, value]


def put_together(content: Dict[str, Any], combinations: Combinations) -> Any:
    """A value of a registered class from its parts, and the name of its class as ``class``.

    Neither ``__init__`` nor ``__post_init__`` runs: the value existed elsewhere and is not
    constructed again.

    :raises Lacking: the class is not registered here, or has other parts here.
    """
    name = a_text(content.get("class"))
    cls = _class_of(name)
    if cls in registry.packed:
        if content.keys() != _SENT_PACKED:
            raise Lacking(f"{printable(name)} {_PACKED_HERE}")
        return registry.packed[cls][1](content["packed"])
    shape: _Shape = _shapes[cls]
    if shape.is_enum:
        return _put_enum(cls, name, content, combinations)
    names = shape.names
    if content.keys() != shape.sent:
        raise _other_parts(name, shape, [part for part in content if part != "class"])
    if shape.is_tuple:
        return tuple.__new__(cls, [content[part] for part in names])
    value: Any = object.__new__(cls)
    set_part = shape.set_part
    for part in names:
        set_part(value, part, content[part])
    return value


def put_together_all(name: str, parts: List[str], columns: List[List[Any]]) -> List[Any]:
    """Values of a registered class from a list for each of their parts, as :func:`put_together`.

    :raises Lacking: the class is not registered here, or has other parts here.
    """
    cls = _class_of(name)
    if cls in registry.packed:
        raise Lacking(f"{printable(name)} {_PACKED_HERE}")
    shape: _Shape = _shapes[cls]
    by_name = dict(zip(parts, columns))
    if by_name.keys() != shape.known or not len(parts) == len(columns) == len(by_name):
        raise _other_parts(name, shape, parts)
    if shape.is_tuple:
        new = functools.partial(tuple.__new__, cls)
        return list(map(new, zip(*[by_name[part] for part in shape.names])))
    values = list(map(object.__new__, itertools.repeat(cls, len(columns[0]))))
    for part in shape.names:
        collections.deque(map(shape.set_part, values, itertools.repeat(part), by_name[part]), 0)
    return values


#: What the wire has of a value that is packed.
_SENT_PACKED = frozenset({"class", "packed"})
_PACKED_HERE = "arrived in parts, but the other side packs it"


def _class_of(name: str) -> Any:
    cls = registry.classes.get(name)
    if cls is None:
        raise Lacking(f"{printable(name)} arrived, but is not registered with @net.value")
    return cls


def _other_parts(name: str, shape: _Shape, arrived: List[str]) -> Lacking:
    return Lacking(f"{printable(name)} has the parts {', '.join(shape.names)}",
                   f", but {printable(', '.join(arrived))} arrived")


def _origin(cls: type, namespace: Optional[Mapping[str, Any]] = None) -> Tuple[str, str]:
    # A class that is defined again, as when a module is reloaded, counts as the same one.
    if cls.__module__ in MAIN and namespace is None:
        namespace = program_of(cls.__qualname__, cls)
    return public_module(cls.__module__, namespace), cls.__qualname__


def _put_enum(cls: Any, name: str, content: Dict[str, Any], combinations: Combinations) -> Any:
    if len(content) != 2:  # its class is one
        raise Malformed("not a member of an enum")
    if issubclass(cls, enum.Flag):
        return _put_flag(cls, name, a_whole(content.get("value")), combinations)
    # As cls[...] does, without an application's metaclass.
    member = cls._member_map_.get(a_text(content.get("name")))
    if member is None:
        raise Lacking(f"{printable(name)}.{printable(content['name'])} arrived, but there is no "
                      f"such member")
    return member


def _put_flag(cls: Any, name: str, value: int, combinations: Combinations) -> Any:
    member = cls._value2member_map_.get(value)
    if member is None:
        member = combinations.find(cls, name, value)
    if type(member) is not cls or member._value_ != value:
        raise Lacking(f"{printable(name)} with unknown bits arrived, which it cannot have")
    return member


def _is_kept(cls: Any, value: int) -> bool:
    """Whether a combination that is made stays for the life of its class."""
    return not value & ~_shapes[cls].bits \
        and len(cls._value2member_map_) < MAX_COMBINATIONS + len(cls._member_map_)


def _combine(cls: Any, name: str, value: int) -> Any:
    """Make a combination that was not used here yet; None if the class does not have it. Python
    keeps most of them for the life of the class.

    :raises Lacking: too many would be kept.
    """
    kept = len(cls._value2member_map_)
    stays = _is_kept(cls, value)
    if not stays and not issubclass(cls, int) and kept >= MAX_COMBINATIONS:
        raise Lacking(f"{printable(name)} has arrived in {MAX_COMBINATIONS:,} combinations, and no "
                      f"more are kept")
    try:
        member = cls(value)
    except ValueError:
        return None
    while not stays and issubclass(cls, int) and len(cls._value2member_map_) > kept:
        cls._value2member_map_.popitem()  # it equals others by its number
    return member


def _is_attrs(cls: Any) -> bool:
    return hasattr(cls, "__attrs_attrs__")


def _is_model(cls: Any) -> bool:
    """Whether it is a model of pydantic 2."""
    model = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    return isinstance(model, type) and issubclass(cls, model) and hasattr(model, "model_fields")


def _pack_model(value: Any) -> Any:
    state = value.__getstate__()
    fields = type(value).model_fields
    # A RootModel has neither of the last two.
    return [{name: held for name, held in state["__dict__"].items() if name in fields},
            state["__pydantic_fields_set__"], state.get("__pydantic_extra__"),
            state.get("__pydantic_private__")]


def _unpack_model(cls: Any, content: Any) -> Any:
    fields, given, extra, private = a_list(content, 4, 4)
    if an_object(fields).keys() != cls.model_fields.keys():
        raise Lacking(f"{cls.__qualname__} has the fields {', '.join(cls.model_fields)}",
                      f", but {printable(', '.join(fields))} arrived")
    if type(given) is not set or not _is_extra(cls, extra) \
            or not given <= {*fields, *(extra or ())} or not _is_private(cls, private):
        raise Malformed("not the state of a model")
    value = cls.__new__(cls)
    value.__setstate__({"__dict__": fields, "__pydantic_fields_set__": given,
                        "__pydantic_extra__": extra, "__pydantic_private__": private})
    return value


def _is_extra(cls: Any, extra: Any) -> bool:
    if cls.model_config.get("extra") != "allow":
        return extra is None
    return type(extra) is dict and _STRING.issuperset(map(type, extra))


def _is_private(cls: Any, private: Any) -> bool:
    names = cls.__private_attributes__.keys()
    return type(private) is dict and private.keys() <= names or private is None and not names


def is_enum(cls: type) -> bool:
    """Whether values of a class have a name in place of parts."""
    return issubclass(cls, enum.Enum)


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)
