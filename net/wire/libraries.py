"""Tables of pandas, polars and pyarrow, and tensors of torch. Each is used where it is loaded.

Tables travel as a stream of Arrow's IPC format. What would not arrive as it was is refused.

These libraries look up many things by name: time zones in any file, types in their own registries;
and pandas evaluates the names of columns. So each name is checked before they see it.
"""
from __future__ import annotations

import datetime
import io
import json
import math
import re
import struct
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from ..errors import ValueNotSupported
from . import zones
from .checks import (Lacking, Malformed, a_list, a_text, a_whole, an_object, is_raised_in, wholes)
from .pieces import brackets_of, levels_of

#: Before this version of pyarrow, reading a stream could run code that its sender had put there.
SAFE_ARROW = (14, 0, 1)
# Values of a table for each byte that it takes: values of one bit, each within another value.
MAX_CELLS = 16
#: Kinds of messages of Arrow.
DICTIONARY, BATCH = 2, 3
_INTS = struct.Struct("<ii")
# Dimensions of a tensor.
MAX_DIMENSIONS = 64


# Bytes that a value of a table takes in pandas: as a number, as a Python object, and as an object
# that holds others; and how many times the bytes that came a table may take: a value within others
# may have come without any.
NUMBER, OBJECT, HOLDER = 8, 100, 250
MAX_GROWTH = 256
# Levels of containers in what pandas says of its columns.
MAX_TOLD = 32
# The name of a type of pandas or numpy; not of texts of a fixed size, where one letter stands for
# any amount of memory.
_TYPE = r"(?![SUVac]\d)[A-Za-z][\w.]{0,100}([<\[(][\w ,:<>=+./\[\]()-]{0,100})?\Z"
# A part of it that could be a path to a file.
_PATH = r"[^ ,=<>\[\]()]*/[^ ,=<>\[\]()]*"
# What the names of types begin with that texts may have.
_OF_TEXTS = ("object", "str", "category")
# A name of a column in several levels, which pandas evaluates.
_ITEM = r"('[^'\\]*'|-?\d{1,20}(\.\d{1,20})?|None|True|False)"
_TUPLE = rf"\({_ITEM}(, {_ITEM})*,?\)\Z"
# Time zones that have no name to look up.
_OFFSET = r"(UTC|[+-]\d\d:\d\d)\Z"
_UNITS = frozenset({"s", "ms", "us", "ns"})
# Characters of a frequency.
MAX_FREQ = 64
# The packages that exceptions of these libraries come from.
_MODULES = frozenset({__name__.partition(".")[0], "pandas", "pyarrow", "polars", "torch", "numpy",
                      "dateutil", "pytz", "zoneinfo", "importlib", "datetime", "json", "ast", "re",
                      "decimal"})


class Library(NamedTuple):
    """How values of one class of a library travel.

    ``take_apart(module, value)`` gives values that can travel; ``put_together(restorer, module,
    content)`` takes them. Anything that the library raises there means that the value or the
    content cannot be used.
    """

    module: str
    name: str
    take_apart: Callable[[Any, Any], List[Any]]
    put_together: Callable[[Any, Any, List[Any]], Any]


def find(value: Any) -> Optional[Library]:
    """How a value travels; None if it is of none of these classes."""
    cls = type(value)
    for library in _BY_CLASS.get(cls.__name__, ()):
        if cls is getattr(sys.modules.get(library.module), library.name, None):
            return library
    return None


def take_apart(library: Library, value: Any) -> List[Any]:
    """What a value is made of, as values that can travel.

    :raises ValueNotSupported: it would not arrive as it is.
    """
    try:
        return library.take_apart(sys.modules[library.module], value)
    except Exception as problem:
        if not is_raised_in(problem, _MODULES):
            raise
        why = problem.before if isinstance(problem, Lacking) else problem
        raise ValueNotSupported("", f"this {library.module}.{library.name} cannot travel: "
                                    f"{why}") from None


def put_together(restorer: Any, module: Any, name: Any, content: Any) -> Any:
    """The value again.

    :param restorer: counts memory, and checks keys.
    :raises Lacking: the library is not loaded here, or is too old.
    :raises Malformed: the content makes no sense.
    """
    library = _BY_NAME.get(f"{a_text(module)}.{a_text(name)}")
    if library is None:
        raise Malformed("not a class of a library")
    loaded = sys.modules.get(library.module)
    if not hasattr(loaded, library.name):
        raise Lacking(f"a value of {library.module} arrived, but that is not loaded",
                      "; import it in the application")
    try:
        return library.put_together(restorer, loaded, a_list(content))
    except (Lacking, MemoryError):
        raise
    except Exception as problem:
        if not is_raised_in(problem, _MODULES):
            raise
        raise Malformed(f"not a {library.module}.{library.name}: {problem}") from None
    except BaseException as problem:
        if not _is_panic(problem):
            raise
        raise Malformed(f"{library.module} cannot read a {library.name}") from None


def _is_panic(problem: BaseException) -> bool:
    """Whether this is a panic of a library that is written in Rust: it has met what it does not
    expect. A panic is no Exception, and its class cannot be imported."""
    return type(problem).__name__ == "PanicException"


def _refuse(why: str) -> None:
    raise ValueError(why)


# ------------------------------------------------------------------------------------ pyarrow


def _arrow() -> Any:
    """pyarrow, by which the tables of other libraries are made and checked.

    :raises Lacking: it is not installed, or is too old.
    """
    try:
        import pyarrow
    except ImportError:
        raise Lacking("tables travel by pyarrow, which is not installed") from None
    _check_version(pyarrow)
    return pyarrow


def _check_version(pyarrow: Any) -> None:
    if tuple(map(int, pyarrow.__version__.split(".")[:3])) < SAFE_ARROW:
        raise Lacking("pyarrow is too old to read what strangers send; 14.0.1 is not")


def _write_arrow(pyarrow: Any, table: Any) -> Any:
    _check_schema(table.schema)
    data = _written(pyarrow, table)
    _check_stream(data)
    return data


def _written(pyarrow: Any, table: Any) -> Any:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return sink.getvalue().to_pybytes()


def _check_stream(data: Any) -> None:
    """Refuse a stream that takes much more memory than it has bytes: compressed batches, and
    columns that have no data for their rows. Each message is its size, a description and a
    body."""
    if type(data) is not bytes:
        raise Malformed("not bytes")
    position = cells = 0
    while position + 8 <= len(data):
        _, size = _INTS.unpack_from(data, position)
        if size <= 0:
            break
        found = _Description(data[position + 8:position + 8 + size])
        cells += found.cells()
        length = found.body()
        if length < 0:
            raise Malformed("a body of less than nothing")
        position += 8 + size + length
    if cells > MAX_CELLS * len(data):
        raise Malformed("more rows than data")


class _Description:
    """The description of a message of Arrow, a flatbuffer, as far as the size of the message needs
    it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._root = self._int("<I", 0)

    def body(self) -> int:
        """Bytes of the message after this description."""
        place = self._field(self._root, 3)
        return self._int("<q", place) if place else 0

    def cells(self) -> int:
        """How many values the message has in all columns, those within others included."""
        kind, header = self._field(self._root, 1), self._table(self._root, 2)
        what = self._data[kind] if kind else 0
        if what == DICTIONARY:
            header = self._table(header, 1)
        elif what != BATCH:
            return 0
        if self._field(header, 3):
            raise Malformed("a compressed table")
        nodes = self._table(header, 1)
        if not nodes:
            return 0
        lengths = struct.unpack_from(f"<{2 * self._int('<I', nodes)}q", self._data, nodes + 4)
        if lengths and min(lengths) < 0:
            raise Malformed("less than no rows")
        return sum(lengths[::2])

    def _int(self, form: str, place: int) -> int:
        return int(struct.unpack_from(form, self._data, place)[0])

    def _field(self, table: int, number: int) -> int:
        """Where a field of a table is; 0 if the table does not have it."""
        known = table - self._int("<i", table)
        if known < 0 or 4 + 2 * number >= self._int("<H", known):
            return 0
        offset = self._int("<H", known + 4 + 2 * number)
        return table + offset if offset else 0

    def _table(self, table: int, number: int) -> int:
        """Where the table or the list is that a field points to; 0 if there is none."""
        place = self._field(table, number) if table else 0
        return place + self._int("<I", place) if place else 0


def _read_arrow(restorer: Any, pyarrow: Any, data: Any) -> Any:
    _check_version(pyarrow)
    _check_stream(data)
    restorer.table(len(data))
    stream = pyarrow.ipc.open_stream(data)
    _check_schema(stream.schema)
    table = stream.read_all()
    table.validate(full=True)
    return table


def _check_schema(schema: Any) -> None:
    """Refuse names that pandas would look up or evaluate, in a table with this schema."""
    for field in schema:
        _check_type(field.type)
    told = (schema.metadata or {}).get(b"pandas")
    if told is not None:
        _check_told(told, schema.names)


def _check_type(kind: Any) -> None:
    zone = getattr(kind, "tz", None)
    if zone is not None:
        _check_zone(zone)
    if hasattr(kind, "storage_type"):
        _check_type(kind.storage_type)
    elif kind.num_fields:
        for number in range(kind.num_fields):
            _check_type(kind.field(number).type)
    elif hasattr(kind, "value_type"):
        _check_type(kind.value_type)


def _check_zone(name: str) -> None:
    if not re.match(_OFFSET, name):
        zones.check_name(name)


def _check_told(text: bytes, names: Sequence[str]) -> None:
    """Check what pandas has said of the columns and the index."""
    if max(levels_of(brackets_of(text))) > MAX_TOLD:
        raise Malformed("columns that are said too much of")
    told = an_object(json.loads(text, parse_int=_short_int))
    columns = a_list(told.get("columns", []))
    indexes = a_list(told.get("column_indexes", []))
    for one in [*columns, *indexes]:
        for name in ("pandas_type", "numpy_type"):
            _check_name_of_type(an_object(one).get(name, "object"))
        zone = an_object(one.get("metadata") or {}).get("timezone")
        if zone is not None:
            _check_zone(a_text(zone))
    if len(indexes) > 1:
        for name in [*names, *[column.get("name") for column in columns]]:
            if type(name) is str and not re.match(_TUPLE, name):
                raise Malformed("not the name of a column in several levels")


def _short_int(digits: str) -> int:
    if len(digits) > 20:
        raise Malformed("a number of too many digits")
    return int(digits)


def _check_name_of_type(name: Any) -> str:
    if not re.match(_TYPE, a_text(name)):
        raise Malformed("not the name of a type")
    for part in re.findall(_PATH, name):
        zones.check_name(part)
    return name  # type: ignore[no-any-return]


def _take_batch(pyarrow: Any, batch: Any) -> List[Any]:
    return [_write_arrow(pyarrow, pyarrow.Table.from_batches([batch]))]


def _put_table(restorer: Any, pyarrow: Any, content: List[Any]) -> Any:
    return _read_arrow(restorer, pyarrow, *a_list(content, 1, 1))


def _put_batch(restorer: Any, pyarrow: Any, content: List[Any]) -> Any:
    table = _read_arrow(restorer, pyarrow, *a_list(content, 1, 1)).combine_chunks()
    batches = table.to_batches()
    return batches[0] if batches else pyarrow.RecordBatch.from_pylist([], schema=table.schema)


def _take_chunks(pyarrow: Any, chunks: Any) -> List[Any]:
    return [_write_arrow(pyarrow, pyarrow.Table.from_arrays([chunks], ["values"]))]


def _put_chunks(restorer: Any, pyarrow: Any, content: List[Any]) -> Any:
    return _read_arrow(restorer, pyarrow, *a_list(content, 1, 1)).column(0)


# ------------------------------------------------------------------------------------- pandas


def _take_frame(pandas: Any, frame: Any) -> List[Any]:
    pyarrow = _arrow()
    plain = frame.set_axis([f"column {number}" for number in range(frame.shape[1])], axis=1)
    table = pyarrow.Table.from_pandas(plain)
    _check_frame(plain, table.to_pandas())
    freq = getattr(frame.index, "freq", None)
    return [_write_arrow(pyarrow, table), None if freq is None else freq.freqstr,
            _take_names(pandas, frame.columns)]


def _check_frame(frame: Any, back: Any) -> None:
    """Refuse a frame that Arrow would change."""
    if not _is_same_index(frame.index, back.index):
        _refuse("its index would not arrive as it is")
    if frame.attrs != back.attrs:
        _refuse("its attrs would not arrive as they are")
    for name in frame.columns:
        one, other = frame[name], back[name]
        if one.dtype != other.dtype:
            _refuse(f"{name} of {one.dtype} would arrive as {other.dtype}")
        if one.dtype == object and not all(map(_is_same, one, other)):
            _refuse(f"{name} holds objects that would arrive as others")


def _take_names(pandas: Any, names: Any) -> List[Any]:
    """The names of columns: as values, their dtype, and what they are called themselves."""
    labels = range(names.start, names.stop, names.step) if type(names) is pandas.RangeIndex \
        else list(names)
    parts = [labels, str(names.dtype), list(names.names)]
    if not _is_same_index(names, _make_names(pandas, parts)):
        _refuse("the names of its columns would not arrive as they are")
    return parts


def _put_names(restorer: Any, pandas: Any, parts: Any) -> Any:
    labels, _, names = a_list(parts, 3, 3)
    if type(labels) is not range:  # pandas compares them with each other
        for level in zip(*[label if type(label) is tuple else (label,)
                           for label in a_list(labels)]):
            restorer.keys(list(level))
    return _make_names(pandas, parts)


def _make_names(pandas: Any, parts: Any) -> Any:
    labels, dtype, names = a_list(parts, 3, 3)
    if type(labels) is range:
        return pandas.RangeIndex(labels, name=a_list(names, 1, 1)[0])
    several = len(a_list(names, 1)) > 1
    if not several and not _check_name_of_type(dtype).startswith(_OF_TEXTS) \
            and str in map(type, a_list(labels)):
        raise Malformed("a text where there is none")  # pandas would guess dates from it
    for label in a_list(labels):
        # What has a length is unrolled.
        for part in label if several and type(label) is tuple else (label,):
            if hasattr(part, "__len__") and type(part) not in (str, bytes):
                raise Malformed("not the name of a column")
    if several:
        return pandas.MultiIndex.from_tuples(labels, names=names)
    return pandas.Index(labels, dtype=dtype, name=names[0])


def _is_same_index(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one.dtype == other.dtype \
        and list(one.names) == list(other.names) and bool(one.equals(other))


def _is_same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other or one != one and other != other)


def _put_frame(restorer: Any, pandas: Any, content: List[Any]) -> Any:
    data, freq, names = a_list(content, 3, 3)
    pyarrow = _arrow()
    table = _read_arrow(restorer, pyarrow, data)
    of_text = NUMBER if hasattr(pandas, "StringDtype") and pandas.Series([""]).dtype != object \
        else OBJECT
    size = sum([_size_in_pandas(pyarrow.types, chunk, of_text)
                for column in table.columns for chunk in column.chunks])
    if size > MAX_GROWTH * len(data):
        raise Malformed("more values than data")
    restorer.weigh_more(max(0, size - len(data)))
    frame = table.to_pandas()
    if type(frame) is not pandas.DataFrame:
        raise Malformed("not a table")
    if freq is not None:
        if len(a_text(freq)) > MAX_FREQ:
            raise Malformed("not a frequency")
        frame.index.freq = freq
    return frame.set_axis(_put_names(restorer, pandas, names), axis=1)


def _size_in_pandas(types: Any, array: Any, of_text: int) -> int:
    """Bytes that a part of a column takes in pandas, roughly."""
    kind, each = array.type, OBJECT
    inside: List[Any] = []
    if types.is_nested(kind):
        each = HOLDER
        inside = [array.keys, array.items] if types.is_map(kind) else \
            [array.field(number) for number in range(kind.num_fields)] \
            if types.is_struct(kind) else [array.values]
    elif types.is_dictionary(kind):
        each, inside = NUMBER, [array.dictionary]
    elif types.is_boolean(kind) and not array.null_count:
        each = 1
    elif any([is_one(kind) for is_one in (
            types.is_integer, types.is_floating, types.is_boolean, types.is_null,
            types.is_timestamp, types.is_duration)]) or hasattr(kind, "storage_type"):
        each = NUMBER
    elif types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        each = of_text
    return each * len(array) + sum([_size_in_pandas(types, one, of_text) for one in inside])


def _take_series(pandas: Any, series: Any) -> List[Any]:
    return [*_take_frame(pandas, series.to_frame("values")), series.name]


def _put_series(restorer: Any, pandas: Any, content: List[Any]) -> Any:
    *frame, name = a_list(content, 4, 4)
    series = _put_frame(restorer, pandas, frame)["values"]
    series.name = name
    return series


def _take_timestamp(pandas: Any, stamp: Any) -> List[Any]:
    return [int(stamp.asm8.view("i8")), stamp.unit, stamp.fold, stamp.tz]


def _put_timestamp(restorer: Any, pandas: Any, content: List[Any]) -> Any:
    count, unit, fold, zone = a_list(content, 4, 4)
    if unit not in _UNITS or zone is not None and not isinstance(zone, datetime.tzinfo):
        raise Malformed("not a time")
    stamp = pandas.Timestamp(a_whole(count), unit=unit, tz=zone).as_unit(unit)
    if stamp.fold != a_whole(fold):
        stamp = stamp.replace(fold=fold)
    return stamp


def _take_timedelta(pandas: Any, delta: Any) -> List[Any]:
    return [int(delta.asm8.view("i8")), delta.unit]


def _put_timedelta(restorer: Any, pandas: Any, content: List[Any]) -> Any:
    count, unit = a_list(content, 2, 2)
    if unit not in _UNITS:
        raise Malformed("not a span of time")
    return pandas.Timedelta(a_whole(count), unit=unit).as_unit(unit)


# ------------------------------------------------------------------------------------- polars


def _take_polars(polars: Any, frame: Any) -> List[Any]:
    if any("Object" in str(dtype) for dtype in frame.dtypes):
        _refuse("it holds Python objects")
    stream = io.BytesIO()
    frame.write_ipc_stream(stream)
    _check_stream(stream.getvalue())
    _check_dtypes(frame.dtypes)
    return [stream.getvalue()]


def _put_polars(restorer: Any, polars: Any, content: List[Any]) -> Any:
    data, = a_list(content, 1, 1)
    # Polars itself reads malformed data without checking it, and that ends the process.
    pyarrow = _arrow()
    stream = io.BytesIO(_written(pyarrow, _read_arrow(restorer, pyarrow, data)))
    frame = polars.read_ipc_stream(stream, use_pyarrow=False)
    _check_dtypes(frame.dtypes)
    return frame


def _put_polars_series(restorer: Any, polars: Any, content: List[Any]) -> Any:
    return _put_polars(restorer, polars, content).to_series()


def _check_dtypes(dtypes: Sequence[Any]) -> None:
    """Refuse time zones that are not known here: polars looks them up when a value is used."""
    for dtype in dtypes:
        zone = getattr(dtype, "time_zone", None)
        if zone is not None:
            _check_zone(zone)
        inner = getattr(dtype, "inner", None)
        _check_dtypes([field.dtype for field in getattr(dtype, "fields", ())]
                      if inner is None else [inner])


# -------------------------------------------------------------------------------------- torch


def _take_tensor(torch: Any, tensor: Any) -> List[Any]:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        _refuse("only plain tensors in the memory of the CPU can; see tensor.cpu()")
    whole = tensor.detach().contiguous().resolve_conj().resolve_neg()
    data = whole.reshape(-1).view(torch.uint8).numpy().tobytes() if whole.numel() else b""
    return [str(tensor.dtype).partition(".")[2], list(tensor.shape), tensor.requires_grad, data]


def _put_tensor(restorer: Any, torch: Any, content: List[Any]) -> Any:
    name, shape, grad, data = a_list(content, 4, 4)
    # Not by getattr: some names are those of modules that torch imports when they are asked for.
    dtype = vars(torch).get(a_text(name))
    sizes = wholes(shape, 0, MAX_DIMENSIONS)
    if not isinstance(dtype, torch.dtype) or any(size < 0 for size in sizes) \
            or type(grad) is not bool or type(data) is not bytes:
        raise Malformed("not a description of a tensor")
    if math.prod(sizes) * torch.empty(0, dtype=dtype).element_size() != len(data):
        raise Malformed("not as much data as the shape says")
    if dtype is torch.bool and data.translate(None, b"\0\1"):
        raise Malformed("not a truth value")
    flat = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype) if data \
        else torch.empty(0, dtype=dtype)
    return flat.reshape(sizes).requires_grad_(grad)


LIBRARIES = (
    Library("pandas", "DataFrame", _take_frame, _put_frame),
    Library("pandas", "Series", _take_series, _put_series),
    Library("pandas", "Timestamp", _take_timestamp, _put_timestamp),
    Library("pandas", "Timedelta", _take_timedelta, _put_timedelta),
    Library("polars", "DataFrame", _take_polars, _put_polars),
    Library("polars", "Series",
            lambda polars, series: _take_polars(polars, series.to_frame()),
            _put_polars_series),
    Library("pyarrow", "Table", lambda pyarrow, table: [_write_arrow(pyarrow, table)],
            _put_table),
    Library("pyarrow", "RecordBatch", _take_batch, _put_batch),
    Library("pyarrow", "ChunkedArray", _take_chunks, _put_chunks),
    Library("torch", "Tensor", _take_tensor, _put_tensor),
)
_BY_NAME: Dict[str, Library] = {f"{one.module}.{one.name}": one for one in LIBRARIES}
_BY_CLASS: Dict[str, List[Library]] = {
    name: [one for one in LIBRARIES if one.name == name]
    for name in {one.name for one in LIBRARIES}}
