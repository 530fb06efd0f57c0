"""numpy arrays and scalars as a description and raw data. numpy is used where it is loaded."""
from __future__ import annotations

import functools
import json
import math
import re
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from ..errors import ValueNotSupported
from .checks import Lacking, Malformed, a_list, a_text, a_whole, wholes
from .memory import size_of_parts

# Dimensions of an array: what numpy itself takes.
MAX_DIMENSIONS = 64
# Fields of a structure. Each costs numpy a microsecond and hundreds of bytes, for each array again.
MAX_FIELDS = 1000
# Fields of all different types of a message: making types takes longer than all else. So many are
# allowed for each MiB of text.
MAX_FIELDS_IN_ALL = 4096
# Fields that may overlap in the same place, on average: each is looked at, overlapping or not.
MAX_VIEWS = 8
# Bytes of one item: numpy counts them in a C int.
MAX_ITEM = 2 ** 31 - 1

# Integers that numpy has twice with the same text: int and long, or long and long long. Their
# characters mean 4 and 8 bytes on every platform that has them twice.
_SAME_SIZE = "iIqQ"
# "a" is an old name of "S", which numpy never gives and warns of.
_is_plain_dtype = re.compile(
    r"[<>|]?[A-Zb-z][0-9]{0,9}(\[[0-9]{0,9}[A-Za-z]{1,2}\])?\Z").match


def loaded() -> Any:
    """The numpy module if the application has loaded it, else None."""
    numpy = sys.modules.get("numpy")
    return numpy if hasattr(numpy, "ndarray") else None


def take_apart_array(value: Any) -> Tuple[List[Any], Any]:
    """``[dtype, shape, order]`` and the data of an array, copied only if it is not in one piece.

    :raises ValueNotSupported: it holds Python objects, or values of a type that is not numpy's own.
    """
    numpy = loaded()
    described = _describe(numpy, value.dtype)
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    whole = numpy.ascontiguousarray(value.T if order == "F" else value)
    data = memoryview(whole.reshape(-1).view(numpy.uint8)) if whole.size else b""
    return [described, list(value.shape), order], data


#: Description -> its text. Descriptions with the same text are the same.
_text_of = json.JSONEncoder(check_circular=False).encode


class Types:
    """The types of the numpy data in one message. Each is made once.

    :param size: characters of JSON text.
    :ivar gone: bytes of memory of descriptions that were counted and are no longer needed.
    """

    def __init__(self, size: int) -> None:
        self._made: Dict[str, Type] = {}
        self.gone = 0
        self._left = max(MAX_FIELDS_IN_ALL, MAX_FIELDS_IN_ALL * size >> 20)
        #: The numpy module, once it was needed.
        self.numpy: Any = None

    def need(self) -> Any:
        """The numpy module.

        :raises Lacking: it is not loaded.
        """
        self.numpy = loaded()
        if self.numpy is None:
            raise Lacking("a numpy value arrived, but numpy is not loaded",
                          "; import it in the application")
        return self.numpy

    def find(self, numpy: Any, described: Any) -> Type:
        """The type of a description.

        :raises Lacking: numpy here has no such type, or there were too many.
        :raises ValueError: the description makes no sense.
        """
        if type(described) is str:
            return self._made.get(described) or self._make(numpy, described, described)
        key = _text_of(a_list(described))
        found = self._made.get(key) or self._make(numpy, key, described)
        self.gone += found.described
        return found

    def _make(self, numpy: Any, key: str, described: Any) -> Type:
        plain = type(described) is str
        form = described if plain else _form(described)
        self._left -= 1 if plain else _count_fields(form)
        if self._left < 0:
            raise Lacking("more types of numpy data arrived than can be made in time")
        dtype = _dtype(numpy, form) if plain else _checked_dtype(numpy, form)
        found = self._made[key] = Type(dtype, _check_of(dtype),
                                       0 if plain else size_of_parts(described))
        return found


class Type(NamedTuple):
    """A type of numpy data.

    :ivar check: called with an array and its data; refuses what numpy never makes itself, but does
        not check either. None where any data is a value.
    :ivar described: bytes of memory of its description; 0 for a text.
    """

    dtype: Any
    check: Optional[Callable[[Any, bytes], None]]
    described: int


def put_together_array(types: Types, described: Any, shape: Any, order: Any, data: bytes) -> Any:
    """The array again, writable.

    :raises ValueError: the data is not what the description says.
    :raises Lacking: as :meth:`Types.find` does.
    """
    if order not in ("C", "F"):
        raise Malformed("neither row nor column first")
    _check_shape(shape)
    numpy = types.numpy or types.need()
    dtype, check, _ = types.find(numpy, described)
    if math.prod(shape) * dtype.itemsize != len(data):
        raise Malformed("not as much data as the shape says")
    # bytearray: received bytes cannot be written to, an array can.
    if data:
        array = numpy.frombuffer(bytearray(data), dtype=dtype)
        if check is not None:
            check(array, data)
    else:
        array = numpy.empty(0, dtype=dtype)
    if len(shape) == 1:
        return array
    return array.reshape(shape[::-1]).T if order == "F" else array.reshape(shape)


def _check_shape(shape: Any) -> Tuple[int, ...]:
    if wholes(shape, 0, MAX_DIMENSIONS) and min(shape) < 0:
        raise Malformed("a size below zero")
    return tuple(shape)


def _check_of(dtype: Any) -> Optional[Callable[[Any, bytes], None]]:
    """A function that refuses truth values that are neither 0 nor 1, and characters beyond the last
    one, of which numpy would make texts that crash Python. None for a type without any."""
    if dtype.names is not None:
        fields = [(name, _check_of(dtype[name].base)) for name in dtype.names]
        checked = [(name, check) for name, check in fields if check is not None]
        return functools.partial(_check_fields, checked) if checked else None
    if dtype.base.kind == "b":
        return _check_truth_values
    return None if dtype.base.kind != "U" else _check_characters_of_big_end \
        if dtype.base.str[0] == ">" else _check_characters


def _check_fields(checked: List[Any], array: Any, data: bytes) -> None:
    for name, check in checked:
        check(array[name], array[name].tobytes())


def _check_truth_values(array: Any, data: bytes) -> None:
    if data.translate(None, b"\0\1"):
        raise Malformed("not a truth value")


_UP_TO_HIGHEST = bytes(range(0x11))


def _check_characters(array: Any, data: bytes, first: int = 3, second: int = 2) -> None:
    # The highest two bytes of each: characters end at 0x10ffff.
    if data[first::4].strip(b"\0") or data[second::4].translate(None, _UP_TO_HIGHEST):
        raise Malformed("not a character")


_check_characters_of_big_end = functools.partial(_check_characters, first=0, second=1)


def is_scalar(value: Any) -> bool:
    """Whether this is a numpy scalar, such as ``numpy.float32(1)``."""
    numpy = loaded()
    return isinstance(value, numpy.generic) and type(value).__module__ == "numpy"


def take_apart_scalar(value: Any) -> Tuple[Any, bytes]:
    """The dtype and the data of a scalar.

    :raises ValueNotSupported: not one of numpy's own types, or a record.
    """
    numpy = loaded()
    # Their dtypes would cut off trailing zeros, and cannot have length 0.
    if type(value) is numpy.str_:
        return "U", value.encode("utf-8", "surrogatepass")
    if type(value) is numpy.bytes_:
        return "S", bytes(value)
    return _describe(numpy, value.dtype), value.tobytes()


def put_together_scalar(types: Types, described: Any, data: bytes) -> Any:
    """The scalar again."""
    numpy = types.numpy or types.need()
    if described == "U":
        return numpy.str_(data.decode("utf-8", "surrogatepass"))
    if described == "S":
        return numpy.bytes_(data)
    dtype, check, _ = types.find(numpy, described)
    if dtype.itemsize != len(data):
        raise Malformed("not as much data as a scalar has")
    array = numpy.frombuffer(data, dtype=dtype)
    if check is not None:
        check(array, data)
    return array[0]


def _describe(numpy: Any, dtype: Any) -> Any:
    """A dtype as text, or as a list of its parts if it has fields."""
    if not dtype.hasobject and dtype.itemsize:
        if dtype.type is numpy.void and dtype.names is not None:
            return [dtype.itemsize, dtype.isalignedstruct,
                    [_describe_field(numpy, name, dtype.fields[name]) for name in dtype.names]]
        known = numpy.dtype(dtype.str)
        if known == dtype and known.type is dtype.type:
            return dtype.str
        if known == dtype and dtype.char in _SAME_SIZE:
            return dtype.char
    raise ValueNotSupported("", f"numpy data of type {dtype} cannot travel")


def _describe_field(numpy: Any, name: str, field: Tuple[Any, ...]) -> List[Any]:
    dtype, offset, *title = field
    if title and type(title[0]) is not str:
        raise ValueNotSupported("", "numpy data with a title that is no text cannot travel")
    inner, shape = dtype.subdtype or (dtype, ())
    return [name, offset, _describe(numpy, inner), list(shape), *title]


def _form(described: Any) -> Any:
    """A description once it was checked, in tuples: a text, or ``(size, aligned, fields)``, where
    each field is ``(name, offset, form, shape, title)``."""
    if type(described) is str:
        return described
    size, aligned, fields = a_list(described, 3, 3)
    if type(aligned) is not bool:
        raise Malformed("neither aligned nor not")
    if a_whole(size) > MAX_ITEM:
        raise Malformed("an item that is too large")
    return size, aligned, tuple([_form_of_field(size, field)
                                 for field in a_list(fields, 1, MAX_FIELDS)])


def _form_of_field(size: int, field: Any) -> Tuple[Any, ...]:
    name, offset, inner, shape, *title = a_list(field, 4, 5)
    if not 0 <= a_whole(offset) < size:
        raise Malformed("a field outside of the item")
    sizes = _check_shape(shape)
    return a_text(name), offset, _form(inner), sizes, a_text(title[0]) if title else None


def _count_fields(form: Any) -> int:
    return 1 if type(form) is str else 1 + sum([_count_fields(field[2]) for field in form[2]])


def _checked_dtype(numpy: Any, form: Any) -> Any:
    dtype = _dtype(numpy, form)
    # Once for the whole: structures may be nested up to the limit of depth.
    if dtype.names is not None and _bytes_of_fields(dtype) > MAX_VIEWS * dtype.itemsize:
        raise Malformed("too many fields in the same place")
    return dtype


def _dtype(numpy: Any, described: Any) -> Any:
    if type(described) is not str:
        return _structure(numpy, *described)
    if not _is_plain_dtype(described):
        raise Malformed("not a dtype")
    try:
        dtype = numpy.dtype(described)
    except TypeError:
        raise Lacking(f"numpy data of type {described} arrived, but numpy has no such type"
                      ) from None
    if dtype.hasobject:
        raise Malformed("an array of Python objects")
    return dtype


def _structure(numpy: Any, size: int, aligned: bool, fields: Any) -> Any:
    names, offsets, forms, shapes, titles = zip(*fields)
    return numpy.dtype({
        "names": names, "offsets": offsets, "titles": titles,
        "formats": [(_dtype(numpy, form), shape) for form, shape in zip(forms, shapes)],
        "itemsize": size, "aligned": aligned})


def _bytes_of_fields(dtype: Any) -> int:
    """Bytes of the innermost fields of an item, which may overlap."""
    if dtype.names is None:
        return dtype.itemsize  # type: ignore[no-any-return]
    return sum(_bytes_of_fields(dtype[name].base) * math.prod(dtype[name].shape)
               for name in dtype.names)
