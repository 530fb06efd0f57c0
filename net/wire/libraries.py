"""Tables of pandas, polars and pyarrow, and tensors of torch. Each is used where it is loaded.

Tables travel as a stream of Arrow's IPC format. What would not arrive as it was is refused.
"""
from __future__ import annotations

import io
import math
import struct
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from ..errors import ValueNotSupported
from .checks import Lacking, Malformed, a_list, a_text, a_whole, wholes

#: Reading streams of strangers ran code of theirs before this version of pyarrow.
SAFE_ARROW = (14, 0, 1)
# Values of a table for each byte that it takes: one of a bit, within another.
MAX_CELLS = 16
#: Kinds of messages of Arrow.
DICTIONARY, BATCH = 2, 3
_INTS = struct.Struct("<ii")
# Dimensions of a tensor.
MAX_DIMENSIONS = 64


class Library(NamedTuple):
    """How values of one class of a library travel.

    ``take_apart(module, value)`` gives values that travel; ``put_together(module, content)`` takes
    them. Whatever the library raises there means that the value or the content cannot be used.
    """

    module: str
    name: str
    take_apart: Callable[[Any, Any], List[Any]]
    put_together: Callable[[Any, List[Any]], Any]


def find(value: Any) -> Optional[Library]:
    """How a value travels, None if it is of none of these classes."""
    cls = type(value)
    for library in _BY_CLASS.get(cls.__name__, ()):
        if cls is getattr(sys.modules.get(library.module), library.name, None):
            return library
    return None


def take_apart(library: Library, value: Any) -> List[Any]:
    """What a value is made of, in values that travel.

    :raises ValueNotSupported: it would not arrive as it is.
    """
    try:
        return library.take_apart(sys.modules[library.module], value)
    except Exception as problem:
        raise ValueNotSupported("", f"this {library.module}.{library.name} cannot travel: "
                                    f"{problem}") from None


def put_together(module: Any, name: Any, content: Any) -> Any:
    """The value again.

    :raises Lacking: the library is not loaded here.
    """
    library = _BY_NAME.get(f"{a_text(module)}.{a_text(name)}")
    if library is None:
        raise Malformed("not a class of a library")
    loaded = sys.modules.get(library.module)
    if not hasattr(loaded, library.name):
        raise Lacking(f"a value of {library.module} arrived, but that is not loaded",
                      "; import it in the application")
    try:
        return library.put_together(loaded, a_list(content))
    except Lacking:
        raise
    except Exception as problem:
        raise Malformed(f"not a {library.module}.{library.name}: {problem}") from None


def _refuse(why: str) -> None:
    raise ValueError(why)


# ------------------------------------------------------------------------------------ pyarrow


def _arrow() -> Any:
    """pyarrow, which pandas needs for this."""
    try:
        import pyarrow
    except ImportError:
        raise Lacking("tables of pandas travel by pyarrow, which is not installed") from None
    _check_version(pyarrow)
    return pyarrow


def _check_version(pyarrow: Any) -> None:
    if tuple(map(int, pyarrow.__version__.split(".")[:3])) < SAFE_ARROW:
        raise Lacking("pyarrow is too old to read what strangers send; 14.0.1 is not")


def _write_arrow(pyarrow: Any, table: Any) -> Any:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    data = sink.getvalue().to_pybytes()
    _check_stream(data)
    return data


def _check_stream(data: Any) -> None:
    """Refuse what takes much more memory than it has bytes: compressed batches, and columns that
    have no data for their rows. Each message is its size, a description and a body."""
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
    """The description of a message of Arrow, a flatbuffer, as far as it takes to know its size."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._root = self._int("<I", 0)

    def body(self) -> int:
        """Bytes of the message after this."""
        place = self._field(self._root, 3)
        return self._int("<q", place) if place else 0

    def cells(self) -> int:
        """How many values it has in all columns, those within others included."""
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
        """Where a field of a table is, 0 if it has none."""
        known = table - self._int("<i", table)
        if known < 0 or 4 + 2 * number >= self._int("<H", known):
            return 0
        offset = self._int("<H", known + 4 + 2 * number)
        return table + offset if offset else 0

    def _table(self, table: int, number: int) -> int:
        """Where a table is, or the start of a list, that a field points to; 0 if to none."""
        place = self._field(table, number) if table else 0
        return place + self._int("<I", place) if place else 0


def _read_arrow(pyarrow: Any, data: Any) -> Any:
    _check_version(pyarrow)
    _check_stream(data)
    table = pyarrow.ipc.open_stream(data).read_all()
    table.validate(full=True)
    return table


def _take_batch(pyarrow: Any, batch: Any) -> List[Any]:
    return [_write_arrow(pyarrow, pyarrow.Table.from_batches([batch]))]


def _put_batch(pyarrow: Any, content: List[Any]) -> Any:
    table = _read_arrow(pyarrow, *a_list(content, 1, 1)).combine_chunks()
    batches = table.to_batches()
    return batches[0] if batches else pyarrow.RecordBatch.from_pylist([], schema=table.schema)


def _take_chunks(pyarrow: Any, chunks: Any) -> List[Any]:
    return [_write_arrow(pyarrow, pyarrow.Table.from_arrays([chunks], ["values"]))]


def _put_chunks(pyarrow: Any, content: List[Any]) -> Any:
    return _read_arrow(pyarrow, *a_list(content, 1, 1)).column(0)


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
    """Refuse what Arrow would change."""
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
    """The names of columns: values, a dtype, and names for them."""
    labels = range(names.start, names.stop, names.step) if type(names) is pandas.RangeIndex \
        else list(names)
    parts = [labels, str(names.dtype), list(names.names)]
    if not _is_same_index(names, _put_names(pandas, parts)):
        _refuse("the names of its columns would not arrive as they are")
    return parts


def _put_names(pandas: Any, parts: Any) -> Any:
    labels, dtype, names = a_list(parts, 3, 3)
    if type(labels) is range:
        return pandas.RangeIndex(labels, name=a_list(names, 1, 1)[0])
    several = len(a_list(names, 1)) > 1
    for label in a_list(labels):
        # What has a length is unrolled.
        for part in label if several and type(label) is tuple else (label,):
            if hasattr(part, "__len__") and type(part) not in (str, bytes):
                raise Malformed("not the name of a column")
    if several:
        return pandas.MultiIndex.from_tuples(labels, names=names)
    return pandas.Index(labels, dtype=a_text(dtype), name=names[0])


def _is_same_index(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one.dtype == other.dtype \
        and list(one.names) == list(other.names) and bool(one.equals(other))


def _is_same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other or one != one and other != other)


def _put_frame(pandas: Any, content: List[Any]) -> Any:
    data, freq, names = a_list(content, 3, 3)
    frame = _read_arrow(_arrow(), data).to_pandas()
    if type(frame) is not pandas.DataFrame:
        raise Malformed("not a table")
    if freq is not None:
        frame.index.freq = a_text(freq)
    return frame.set_axis(_put_names(pandas, names), axis=1)


def _take_series(pandas: Any, series: Any) -> List[Any]:
    return [*_take_frame(pandas, series.to_frame("values")), series.name]


def _put_series(pandas: Any, content: List[Any]) -> Any:
    *frame, name = a_list(content, 4, 4)
    series = _put_frame(pandas, frame)["values"]
    series.name = name
    return series


def _take_timestamp(pandas: Any, stamp: Any) -> List[Any]:
    return [int(stamp.asm8.view("i8")), stamp.unit, stamp.fold, stamp.tz]


def _put_timestamp(pandas: Any, content: List[Any]) -> Any:
    count, unit, fold, zone = a_list(content, 4, 4)
    stamp = pandas.Timestamp(a_whole(count), unit=a_text(unit)).as_unit(unit)
    if zone is not None:
        stamp = stamp.tz_localize("UTC").tz_convert(zone)
    if stamp.fold != a_whole(fold):
        stamp = stamp.replace(fold=fold)
    return stamp


def _take_timedelta(pandas: Any, delta: Any) -> List[Any]:
    return [int(delta.asm8.view("i8")), delta.unit]


def _put_timedelta(pandas: Any, content: List[Any]) -> Any:
    count, unit = a_list(content, 2, 2)
    return pandas.Timedelta(a_whole(count), unit=a_text(unit)).as_unit(unit)


# ------------------------------------------------------------------------------------- polars


def _take_polars(polars: Any, frame: Any) -> List[Any]:
    if any("Object" in str(dtype) for dtype in frame.dtypes):
        _refuse("it holds Python objects")
    stream = io.BytesIO()
    frame.write_ipc_stream(stream)
    _check_stream(stream.getvalue())
    return [stream.getvalue()]


def _put_polars(polars: Any, content: List[Any]) -> Any:
    data, = a_list(content, 1, 1)
    _check_stream(data)
    return polars.read_ipc_stream(io.BytesIO(data), use_pyarrow=False)


# -------------------------------------------------------------------------------------- torch


def _take_tensor(torch: Any, tensor: Any) -> List[Any]:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        _refuse("only plain tensors in the memory of the CPU can; see tensor.cpu()")
    whole = tensor.detach().contiguous().resolve_conj().resolve_neg()
    data = whole.reshape(-1).view(torch.uint8).numpy().tobytes() if whole.numel() else b""
    return [str(tensor.dtype).partition(".")[2], list(tensor.shape), tensor.requires_grad, data]


def _put_tensor(torch: Any, content: List[Any]) -> Any:
    name, shape, grad, data = a_list(content, 4, 4)
    dtype = getattr(torch, a_text(name), None)
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
            lambda polars, content: _put_polars(polars, content).to_series()),
    Library("pyarrow", "Table", lambda pyarrow, table: [_write_arrow(pyarrow, table)],
            lambda pyarrow, content: _read_arrow(pyarrow, *a_list(content, 1, 1))),
    Library("pyarrow", "RecordBatch", _take_batch, _put_batch),
    Library("pyarrow", "ChunkedArray", _take_chunks, _put_chunks),
    Library("torch", "Tensor", _take_tensor, _put_tensor),
)
_BY_NAME: Dict[str, Library] = {f"{one.module}.{one.name}": one for one in LIBRARIES}
_BY_CLASS: Dict[str, List[Library]] = {
    name: [one for one in LIBRARIES if one.name == name]
    for name in {one.name for one in LIBRARIES}}
