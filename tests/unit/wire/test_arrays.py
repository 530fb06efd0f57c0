"""numpy arrays and scalars."""
from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from net.errors import ProtocolError, ValueNotSupported
from net.wire import arrays
from net.wire.values import pack, unpack
from each import each
from travel import as_result, assert_same

numpy = pytest.importorskip("numpy")
array_strategies = pytest.importorskip("hypothesis.extra.numpy")

DTYPES = ["?", "b", "B", "<i2", ">i2", "<u4", ">i4", "<i8", ">u8", "<f2", ">f2", "<f4", "<f8",
          ">f8",
          "<c8", ">c16", "S3", "<U2", ">U4", "<M8[D]", ">M8[ns]", "<m8[25s]", "M8[Y]",
          numpy.dtype("g"), numpy.dtype("q"), numpy.dtype("Q"), numpy.dtype("i"), numpy.dtype("l")]

STRUCTURES = [
    numpy.dtype("i4,f8"),
    numpy.dtype([("a", ">i2"), ("b", "S3")]),
    numpy.dtype([("a", "i4", (2, 3)), ("b", [("x", "<M8[us]"), ("y", "?", 2)])]),
    numpy.dtype("i1,f8", align=True),
    numpy.dtype([(("a title", "a"), "i4"), ("b", "f8")]),
    numpy.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 0]}),
    numpy.dtype({"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 0]}),
    numpy.dtype({"names": ["a"], "formats": ["i4"], "offsets": [8], "itemsize": 32}),
    numpy.dtype([("é!", "q")]),
]


@given(array_strategies.arrays(
    st.sampled_from(DTYPES), array_strategies.array_shapes(min_dims=0, max_dims=4, min_side=0,
                                                           max_side=4)), st.booleans())
def test_arrays_of_all_types_and_shapes_arrive_as_they_were(array, transposed):
    array = array.T if transposed else array
    arrived = as_result([array])[0]
    assert_same(arrived, numpy.asarray(array))
    assert arrived.dtype.byteorder == array.dtype.byteorder
    assert arrived.dtype.char == array.dtype.char


@each("dtype", STRUCTURES, ids=str)
def test_arrays_with_fields_arrive_as_they_were(dtype):
    array = numpy.zeros(3, dtype)
    array.reshape(-1).view(numpy.uint8)[:] = 1
    for value in (array, array[:0], array.reshape(3, 1), array[0]):
        arrived = as_result(value)
        assert_same(arrived, value)
        assert arrived.dtype == dtype and arrived.dtype.fields == dtype.fields
        assert arrived.dtype.isalignedstruct == dtype.isalignedstruct


def edge_arrays():
    yield "zero dimensions", numpy.array(5.0)
    yield "no rows", numpy.zeros((0, 3))
    yield "no columns", numpy.zeros((3, 0), order="F")
    yield "column first", numpy.asfortranarray(numpy.arange(6).reshape(2, 3))
    yield "three dimensions turned", numpy.arange(24).reshape(2, 3, 4).transpose(1, 0, 2)
    yield "strided", numpy.arange(20)[::3]
    yield "backwards", numpy.arange(5)[::-1]
    yield "broadcast", numpy.broadcast_to(numpy.arange(3), (4, 3))
    yield "not a time", numpy.array(["NaT", "2020-01-01"], "M8[D]")
    yield "not numbers", numpy.array([numpy.nan, -0.0, numpy.inf])
    yield "large", numpy.arange(10_000.0)
    yield "large and backwards", numpy.arange(10_000)[::-1]
    yield "raw data", numpy.array([b"abc", b"de"], "V3")
    yield "surrogates", numpy.array(["\ud800"])
    yield "32 dimensions", numpy.zeros((1,) * 32)


@each("array", [array for _, array in edge_arrays()],
      ids=[name for name, _ in edge_arrays()])
def test_edge_arrays_arrive_as_they_were(array):
    assert_same(as_result(array), array)
    assert_same(as_result({"k": (array, [array])}), {"k": (array, [array])})


def test_an_array_that_arrived_can_be_written_to():
    read_only = numpy.arange(5)
    read_only.setflags(write=False)
    for array in (read_only, numpy.arange(10_000), numpy.zeros((0, 2))):
        arrived = as_result(array)
        assert arrived.flags.writeable and arrived.flags.aligned
        arrived.fill(7)


@each("value", [
    numpy.bool_(True), numpy.int8(-1), numpy.uint64(2 ** 64 - 1), numpy.float16(1.5),
    numpy.float32(0.1), numpy.float64(-0.0), numpy.float64("nan"), numpy.longdouble("1.1"),
    numpy.complex64(1 - 0j), numpy.clongdouble(1j), numpy.longlong(5), numpy.ulonglong(5),
    numpy.intc(5), numpy.str_("aé\U0001f600"), numpy.str_(""), numpy.str_("a\0"),
    numpy.str_("\ud800"), numpy.bytes_(b"ab"), numpy.bytes_(b""), numpy.bytes_(b"ab\0"),
    numpy.void(b"abc"), numpy.datetime64("2020-01-01T00", "h"), numpy.datetime64("NaT", "D"),
    numpy.timedelta64(5, "ns"), numpy.zeros(1, ">f8")[0], numpy.zeros(1, "i4,f8")[0],
    numpy.str_("x" * 5000), numpy.bytes_(b"x" * 5000),
], ids=lambda value: f"{type(value).__name__} {value!s:.9}")
def test_scalars_keep_their_type_and_bits(value):
    arrived = as_result(value)
    assert type(arrived) is type(value)
    assert arrived.dtype == value.dtype
    assert arrived.tobytes() == value.tobytes()
    assert_same(as_result([(value,)])[0], (arrived,))


def test_a_scalar_is_not_taken_for_the_number_that_it_equals():
    assert type(as_result([numpy.float64(1.5)])[0]) is numpy.float64
    assert type(as_result({numpy.int64(1): 2}).popitem()[0]) is numpy.int64


@each("value", [
    numpy.array([{}], object), numpy.zeros(1, [("a", "i4"), ("b", "O")]), numpy.zeros(2, "V0"),
    numpy.rec.array([(1, 2.0)], "i4,f8"), numpy.rec.array([(1, 2.0)], "i4,f8")[0],
    numpy.rec.array([(1, 2.0)], "i4,f8").view(numpy.ndarray), numpy.ma.array([1]),
    numpy.zeros(2, numpy.dtype([])), numpy.dtype("i4"), numpy.random.default_rng(),
], ids=lambda value: str(type(value)))
def test_what_holds_objects_or_is_more_than_an_array_is_refused(value):
    with pytest.raises(ValueNotSupported, match=r"^result\[0\]: .*cannot travel"):
        as_result([value])


def test_strings_of_any_length_are_refused():
    if not hasattr(getattr(numpy, "dtypes", None), "StringDType"):
        pytest.skip("this numpy has no such arrays")
    with pytest.raises(ValueNotSupported):
        as_result(numpy.array(["a", "b" * 99], numpy.dtypes.StringDType()))


def test_the_data_of_an_array_is_sent_without_a_copy():
    array = numpy.arange(10_000)
    (buffer,) = pack(array, "result").buffers
    assert numpy.shares_memory(numpy.frombuffer(buffer, numpy.uint8), array)


@each("described", [
    '["O",[0],"C","AAAAAAAAAAA="]', '["|O8",[1],"C","AAAAAAAAAAA="]', '["<f8",[2],"C","AAAA"]',
    '["<f8",[1099511627776],"C",""]', '["<f8","x","C",""]',
    '["i4,O",[0],"C",""]', '["(9,9)i4",[0],"C",""]', '["os.system",[0],"C",""]', '["",[0],"C",""]',
    '[5,[0],"C",""]', '[null,[0],"C",""]', '[[8,false,[["a",0,"O",[]]]],[0],"C",""]',
    '[[8,false,[["a",4,"<f8",[]]]],[0],"C",""]', '[[8,false,[["a",-8,"<f8",[]]]],[0],"C",""]',
    '[[8,false],[0],"C",""]', '[[4,true,[["a",1,"<i4",[]]]],[0],"C",""]', '["<f8",[0],"C"]',
    '["<f8",[0],"C",5]', '["<U99999999999",[0],"C",""]', '{"a":1}', '["<f8",[1e999],"C",""]',
])
def test_descriptions_without_sense_are_refused(described):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ProtocolError):
            unpack(b'{"!array":' + described.encode() + b"}", True)


@each("described", ['["<f8","AAAA"]', '["O","AAAAAAAAAAA="]', '["U","gA=="]',
                    '["<f8",""]', '["<f8","AAAAAAAAAAAAAAAAAAAAAA=="]', "[]"])
def test_scalars_without_sense_are_refused(described):
    with pytest.raises(ProtocolError):
        unpack(b'{"!scalar":' + described.encode() + b"}", True)


def test_without_numpy_an_array_is_refused_with_advice(monkeypatch):
    packed = [pack(value, "result") for value in (numpy.zeros(2), numpy.float32(1))]
    monkeypatch.setattr(arrays, "loaded", lambda: None)
    for one in packed:
        with pytest.raises(ValueNotSupported, match="import it in the application"):
            unpack(one.text.encode(), one.tagged, one.buffers)


def test_a_half_loaded_numpy_is_left_alone(monkeypatch):
    import sys
    import types

    monkeypatch.setitem(sys.modules, "numpy", types.ModuleType("numpy"))
    assert arrays.loaded() is None
    with pytest.raises(ValueNotSupported):
        as_result(object())
