"""numpy arrays and scalars as a description and raw data. numpy is used where it is loaded."""
from __future__ import annotations

import re
import sys
from typing import Any, List, Tuple

from ..errors import ValueNotSupported

# Integers that numpy has twice, with the same text: int and long, or long and long long. Their
# characters mean 4 and 8 bytes on every platform that has them twice.
_SAME_SIZE = "iIqQ"
_PLAIN_DTYPE = re.compile(r"[<>|]?[A-Za-z][0-9]{0,9}(\[[0-9]{0,9}[A-Za-z]{1,2}\])?\Z")


def loaded() -> Any:
    """The numpy module if the application has loaded it, else None."""
    numpy = sys.modules.get("numpy")
    return numpy if hasattr(numpy, "ndarray") else None


def take_apart_array(value: Any) -> Tuple[List[Any], Any]:
    """``[dtype, shape, order]`` and the data of an array, copied only if it is not in one piece.

    :raises ValueNotSupported: it holds Python objects, or of a type that is not numpy's own.
    """
    numpy = loaded()
    described = _describe(numpy, value.dtype)
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    whole = numpy.ascontiguousarray(value.T if order == "F" else value)
    data = memoryview(whole.reshape(-1).view(numpy.uint8)) if whole.size else b""
    return [described, list(value.shape), order], data


def put_together_array(described: Any, shape: List[int], order: str, data: bytes) -> Any:
    """The array again, writable.

    :raises ValueError: the data is not what the description says.
    """
    numpy = _needed()
    # bytearray: received bytes cannot be written to, an array can.
    array = numpy.frombuffer(bytearray(data), dtype=_dtype(numpy, described)) if data \
        else numpy.empty(0, dtype=_dtype(numpy, described))
    return array.reshape(shape[::-1]).T if order == "F" else array.reshape(shape)


def is_scalar(value: Any) -> bool:
    """Whether this is a numpy scalar, such as ``numpy.float32(1)``."""
    numpy = loaded()
    return isinstance(value, numpy.generic) and type(value).__module__ == "numpy"


def take_apart_scalar(value: Any) -> Tuple[Any, bytes]:
    """The dtype and the data of a scalar.

    :raises ValueNotSupported: not one of numpy's own types, or a record.
    """
    numpy = loaded()
    # Their dtypes would cut off trailing zeros, and cannot be of length 0.
    if type(value) is numpy.str_:
        return "U", value.encode("utf-8", "surrogatepass")
    if type(value) is numpy.bytes_:
        return "S", bytes(value)
    return _describe(numpy, value.dtype), value.tobytes()


def put_together_scalar(described: Any, data: bytes) -> Any:
    """The scalar again."""
    numpy = _needed()
    if described == "U":
        return numpy.str_(data.decode("utf-8", "surrogatepass"))
    if described == "S":
        return numpy.bytes_(data)
    value, = numpy.frombuffer(data, dtype=_dtype(numpy, described))
    return value


def _needed() -> Any:
    numpy = loaded()
    if numpy is None:
        raise ValueNotSupported("numpy", "a numpy value arrived, but numpy is not loaded here; "
                                         "import it in the application")
    return numpy


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
    inner, shape = dtype.subdtype or (dtype, ())
    return [name, offset, _describe(numpy, inner), list(shape), *title]


def _dtype(numpy: Any, described: Any) -> Any:
    if isinstance(described, str):
        if not _PLAIN_DTYPE.match(described):
            raise ValueError("not a dtype")
        dtype = numpy.dtype(described)
    else:
        dtype = _structure(numpy, *described)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    return dtype


def _structure(numpy: Any, size: int, aligned: bool, fields: List[Any]) -> Any:
    formats = [(_dtype(numpy, described), tuple(shape)) for _, _, described, shape, *_ in fields]
    return numpy.dtype({
        "names": [field[0] for field in fields], "offsets": [field[1] for field in fields],
        "formats": formats, "titles": [(*field, None)[4] for field in fields],
        "itemsize": size, "aligned": aligned})
