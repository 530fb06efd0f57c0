"""Tables, tensors and models of other libraries, where these are installed."""
from __future__ import annotations

import base64
import datetime
import decimal
import json
import sys
import types
import zoneinfo
from random import Random
from typing import Any, List

import pytest

import net
from net.errors import ProtocolError, ValueNotSupported
from net.wire import registered, values
from net.wire.values import unpack
from each import each
from travel import as_result

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


@pytest.fixture(autouse=True)
def own_classes(monkeypatch):
    """What a test registers is gone after it."""
    for name, held in vars(registered.registry).items():
        monkeypatch.setattr(registered.registry, name, dict(held))


# ------------------------------------------------------------------------------------- pandas


@pytest.fixture
def pandas() -> Any:
    pytest.importorskip("pyarrow")
    return pytest.importorskip("pandas")


def frames(pandas):
    times = pandas.date_range("2024-03-30", periods=3, freq="D", tz="Europe/Berlin")
    yield pandas.DataFrame({"b": [1, 2, 3], "a": [0.5, float("nan"), -0.0]})
    yield pandas.DataFrame({"x": pandas.array([1, 2, 3], dtype="int8")}, index=times)
    yield pandas.DataFrame({"t": times, "n": times.tz_localize(None)}, index=list("zyx"))
    yield pandas.DataFrame({"c": pandas.Categorical(["u", "v", "u"], ["v", "u"], ordered=True)})
    yield pandas.DataFrame({"s": ["text", "ä", None]})
    yield pandas.DataFrame({"i": pandas.array([1, None, 3], dtype="Int64")})
    yield pandas.DataFrame({"d": [datetime.date(2024, 1, 2)], "p": [decimal.Decimal("1.50")]})
    yield pandas.DataFrame({"p": pandas.period_range("2024-01", periods=3, freq="M")})
    yield pandas.DataFrame({"x": range(4)}, index=pandas.MultiIndex.from_product(
        [["a", "b"], [1, 2]], names=["one", "two"]))
    yield pandas.DataFrame({1: [1.0], 2: [2.0]})
    yield pandas.DataFrame({"x": range(3)}, index=range(10, 16, 2))
    yield pandas.DataFrame([[1, 2], [3, 4]])
    yield pandas.DataFrame([[1, 2]], columns=pandas.MultiIndex.from_tuples([("a", 1), ("b", 2)]))
    yield pandas.DataFrame([[1, 2]], columns=pandas.Index(["x", "x"], name="twice"))
    yield pandas.DataFrame({"x": []})
    yield pandas.DataFrame(index=[1, 2])


def test_frames_arrive_as_they_are(pandas):
    for frame in frames(pandas):
        back = as_result({"deep": [frame]})["deep"][0]
        pandas.testing.assert_frame_equal(frame, back, check_exact=True, check_freq=True)
        assert list(back.dtypes) == list(frame.dtypes)


def test_series_and_their_names_arrive_as_they_are(pandas):
    for frame in frames(pandas):
        for number in range(frame.shape[1]):
            series = frame.iloc[:, number].rename(("any", 1))
            pandas.testing.assert_series_equal(series, as_result(series), check_exact=True)


def test_times_of_pandas_arrive_as_they_are(pandas):
    for value in (pandas.Timestamp("2024-03-30 12:00:00.123456789"),
                  *(pandas.Timestamp(datetime.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN,
                                                       fold=fold)) for fold in (0, 1)),
                  pandas.Timestamp("2024-01-01", tz="UTC"), pandas.Timestamp.max,
                  pandas.Timedelta("-1 days 5 ns"), pandas.Timedelta(5, "s")):
        back = as_result(value)
        assert type(back) is type(value) and back == value and back.unit == value.unit
        if isinstance(value, pandas.Timestamp):
            assert back.tz == value.tz and back.fold == value.fold


@pytest.mark.parametrize("columns, why", [
    ({"mixed": [1, "text"]}, "cannot travel"),
    ({"lists": [[1], [2]]}, "holds objects that would arrive as others"),
    ({"numbers": "objects"}, "would arrive as int64"),
    ({"own": [object()]}, "cannot travel")])
def test_what_arrow_would_change_is_refused(pandas, columns, why):
    frame = pandas.DataFrame({"numbers": [1, 2]}, dtype=object) \
        if columns == {"numbers": "objects"} else pandas.DataFrame(columns)
    with pytest.raises(ValueNotSupported, match=why):
        as_result(frame)


# --------------------------------------------------------------------------- polars and pyarrow


def test_tables_of_polars_arrive_as_they_are():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({
        "i": [1, None], "s": ["a", "ä"], "l": [[1, 2], []], "c": [{"x": 1}, {"x": 2}],
        "t": [datetime.datetime(2024, 3, 31, 12, tzinfo=BERLIN)] * 2,
        "k": polars.Series(["u", "v"], dtype=polars.Categorical)})
    back = as_result([frame])[0]
    assert back.schema == frame.schema and back.equals(frame)
    series = frame["t"]
    back = as_result(series)
    assert (back.dtype, back.name) == (series.dtype, series.name) and back.equals(series)
    with pytest.raises(ValueNotSupported):
        as_result(polars.DataFrame({"o": polars.Series([object()], dtype=polars.Object)}))


def test_tables_of_pyarrow_arrive_as_they_are():
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"i": [1, None, 3], "s": ["a", "b", None], "l": [[1], [], None]},
                          metadata={"of": "mine"})
    back = as_result(table)
    assert back.equals(table, check_metadata=True) and back.schema == table.schema
    batch = table.to_batches()[0]
    assert as_result(batch).equals(batch)
    empty = batch.slice(0, 0)
    assert as_result(empty).equals(empty) and as_result(empty).schema == empty.schema
    chunks = pyarrow.chunked_array([[1, 2], [3]])
    assert as_result(chunks).equals(chunks)


# -------------------------------------------------------------------------------------- torch


def test_tensors_arrive_as_they_are():
    pytest.importorskip("numpy")
    torch = pytest.importorskip("torch")
    for tensor in (torch.arange(6).reshape(2, 3).T, torch.tensor(1.5), torch.empty(0, 3),
                   torch.tensor([True, False]), torch.ones(3, dtype=torch.bfloat16),
                   torch.tensor([1 + 2j]).conj(), torch.ones(2, requires_grad=True)):
        back = as_result([tensor])[0]
        assert type(back) is torch.Tensor and back.dtype is tensor.dtype
        assert back.shape == tensor.shape and torch.equal(back, tensor)
        assert back.requires_grad == tensor.requires_grad
    with pytest.raises(ValueNotSupported, match="only plain tensors"):
        as_result(torch.eye(3).to_sparse())


# ---------------------------------------------------------------------------- attrs and pydantic


def test_classes_of_attrs_travel_once_they_are_registered():
    attrs = pytest.importorskip("attrs")

    @attrs.define
    class Shot:
        name: str
        frames: range = range(3)
        _hidden: tuple = (1,)

    @attrs.frozen(slots=False)
    class Fixed:
        shot: Any

    with pytest.raises(ValueNotSupported, match="registered with @net.value"):
        as_result(Shot("a"))
    net.value("Shot")(Shot)
    net.value("Fixed")(Fixed)
    value = Fixed(Shot("sc01", range(1, 5), (2, 3)))
    assert as_result(value) == value
    value = Fixed(1)
    object.__setattr__(value, "more", 1)
    with pytest.raises(ValueNotSupported, match="besides its fields"):
        as_result(value)


@each("slots", [True, False])
def test_a_class_of_attrs_that_keeps_its_hash_is_refused(slots):
    """Its values are made without ``__init__``: to hash one raised an AttributeError."""
    attrs = pytest.importorskip("attrs")

    @attrs.frozen(slots=slots, cache_hash=True)
    class Kept:
        x: int

    with pytest.raises(TypeError, match="without cache_hash=True it can travel"):
        net.value(Kept)


def test_models_of_pydantic_travel_once_they_are_registered():
    pydantic = pytest.importorskip("pydantic", "2.0")

    class Part(pydantic.BaseModel):
        size: int = 1

    class Model(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        name: str = pydantic.Field(alias="Name")
        part: Part = Part()
        when: datetime.datetime = datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc)
        _seen: int = pydantic.PrivateAttr(0)

    with pytest.raises(ValueNotSupported, match="registered with @net.value"):
        as_result(Part())
    net.value("Part")(Part)
    net.value("Model")(Model)
    value = Model(Name="x", part=Part(size=5), more=(1, 2))
    value._seen = 7
    back = as_result(value)
    assert back == value and type(back.part) is Part and back._seen == 7
    assert back.model_fields_set == value.model_fields_set and back.more == (1, 2)


# ------------------------------------------------------------------------------ pack and unpack


def test_root_models_of_pydantic_travel_once_they_are_registered():
    pydantic = pytest.importorskip("pydantic", "2.0")

    class Root(pydantic.RootModel):
        root: List[int]

    net.value(Root)
    value = as_result(Root([1, 2]))
    assert value == Root([1, 2]) and value.model_dump() == [1, 2] and value.model_copy() == value


@each("state", [
    '[{"x":1},{"!set":[]},{"!dict":[1,2]},{"_seen":0}]', '[{"x":1},{"!set":[]},{},null]',
    '[{"x":1},{"!set":[]},{},{"other":0}]', '[{"x":1},{"!set":["y"]},{},{"_seen":0}]',
    '[{"x":1},{"!set":[]},null,{"_seen":0}]', '[{"x":1},[],{},{"_seen":0}]'])
def test_the_state_of_a_model_that_pydantic_does_not_make_makes_no_sense(state):
    pydantic = pytest.importorskip("pydantic", "2.0")

    class Model(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        x: int
        _seen: int = pydantic.PrivateAttr(0)

    net.value("Model")(Model)
    good = '[{"x":1},{"!set":["x","more"]},{"more":2},{"_seen":5}]'

    def read(state: str) -> Any:
        return unpack(f'{{"!value":{{"class":"Model","packed":{state}}}}}'.encode(), True)

    assert read(good).model_dump() == {"x": 1, "more": 2} and read(good)._seen == 5
    with pytest.raises(ProtocolError, match="not the state of a model"):
        read(state)


class Money:
    def __init__(self, amount: int, currency: str) -> None:
        self.amount, self.currency = amount, currency

    def __eq__(self, other: Any) -> bool:
        return vars(self) == vars(other)


def pack_money(money: Money) -> Any:
    return (money.amount, money.currency)


def test_any_class_travels_by_what_packs_and_unpacks_it(monkeypatch):
    with pytest.raises(TypeError, match="pack=..., unpack=..."):
        net.value(Money)
    assert net.value(Money, pack=pack_money, unpack=lambda parts: Money(*parts)) is Money
    value = {"deep": [Money(5, "EUR"), Money(10 ** 30, "x" * 10_000)]}
    assert as_result(value) == value
    # So many parts that they are weighed before they become text.
    monkeypatch.setattr(values, "MANY", 1000)
    many = [Money(number, "EUR") for number in range(1000)]
    assert as_result(many)[-1] == many[-1]


def test_it_says_what_is_wrong_with_pack_and_unpack():
    for terms in ({"pack": pack_money}, {"unpack": Money}, {"pack": 1, "unpack": 2}):
        with pytest.raises(TypeError, match="pack and unpack are two functions"):
            net.value(Money, **terms)
    net.value(Money, pack=lambda money: object(), unpack=Money)
    with pytest.raises(ValueNotSupported, match="object cannot travel"):
        as_result(Money(1, "x"))

    def fail(money: Any) -> Any:
        raise ZeroDivisionError("of mine")
    net.value(Money, pack=fail, unpack=fail)
    with pytest.raises(ZeroDivisionError, match="of mine"):
        as_result(Money(1, "x"))
    net.value(Money, pack=pack_money, unpack=fail)
    with pytest.raises(ZeroDivisionError, match="of mine"):
        as_result(Money(1, "x"))


# ------------------------------------------------------------------------- what strangers may send


@pytest.mark.parametrize("content", [
    None, [], ["pandas"], ["os", "system", ["true"]],
    ["pandas", "read_pickle", []], [["pandas"], "DataFrame", []]])
def test_what_names_no_class_of_a_library_makes_no_sense(content):
    with pytest.raises(ProtocolError):
        unpack(json.dumps({"!library": content}).encode(), True)


@pytest.mark.parametrize("module, name", [
    ("pandas", "DataFrame"), ("pandas", "Series"), ("pandas", "Timestamp"), ("pyarrow", "Table"),
    ("pyarrow", "RecordBatch"), ("polars", "DataFrame"), ("torch", "Tensor")])
@pytest.mark.parametrize("content", [
    [], [1], ["x", "y", "z", 1], [{"!bytes": "AAAA"}], [{"!bytes": "AAAA"}, None],
    ["float32", [2, 10 ** 12], False, {"!bytes": "AAAA"}], ["load", [1], False, {"!bytes": ""}]])
def test_senseless_content_is_refused(module, name, content):
    pytest.importorskip(module)
    with pytest.raises((ProtocolError, ValueNotSupported)):
        unpack(json.dumps({"!library": [module, name, content]}).encode(), True)


def of_arrow(pyarrow, table, **options):
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema,
                                options=pyarrow.ipc.IpcWriteOptions(**options)) as writer:
        writer.write(table)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("module, name", [("pandas", "DataFrame"), ("pyarrow", "Table"),
                                          ("polars", "DataFrame")])
def test_tables_that_are_larger_than_what_arrives_are_refused_before_they_are_made(module, name):
    """A hundred bytes may stand for terabytes."""
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip(module)
    bombs = [
        pyarrow.table({"n": pyarrow.nulls(10 ** 9)}),
        pyarrow.table({"e": pyarrow.RunEndEncodedArray.from_arrays([10 ** 9], [1])})]
    texts = [of_arrow(pyarrow, table) for table in bombs]
    texts.append(of_arrow(pyarrow, pyarrow.table({"z": ["0" * 10 ** 6]}),
                          compression="zstd"))
    for text in texts:
        assert len(text) < 3000
        more = [None, [[], "object", [None]]] if module == "pandas" else []
        tree = {"!library": [module, name, [
            {"!bytes": base64.b64encode(text).decode()}, *more]]}
        with pytest.raises(ProtocolError, match="more rows than data|compressed"):
            unpack(json.dumps(tree).encode(), True)


@pytest.mark.parametrize("seed", range(5))
def test_tables_that_were_bent_make_no_sense_or_another_table(seed):
    pyarrow = pytest.importorskip("pyarrow")
    random = Random(seed)
    whole = of_arrow(pyarrow, pyarrow.table({"i": [1, None, 3], "s": ["a", "b", None]}))
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(random.randrange(1, 4)):
            data[random.randrange(len(data))] = random.randrange(256)
        text = base64.b64encode(data[:random.randrange(len(data) + 1)]).decode()
        tree = {"!library": ["pyarrow", "Table", [{"!bytes": text}]]}
        try:
            assert type(unpack(json.dumps(tree).encode(), True)) is pyarrow.Table
        except ProtocolError:
            pass


def test_names_of_columns_are_not_unrolled(pandas):
    frame = of_arrow(pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow").table(
        {"column 0": [1]}))
    for labels, names in (([{"!range": [0, 10 ** 12, 1]}], [None]),
                          ([{"!tuple": [{"!range": [0, 10 ** 12, 1]}, 1]}], ["a", "b"])):
        tree = {"!library": ["pandas", "DataFrame", [
            {"!bytes": base64.b64encode(frame).decode()}, None, [labels, "int64", names]]]}
        with pytest.raises(ProtocolError, match="not the name of a column"):
            unpack(json.dumps(tree).encode(), True)


def as_frame(data, labels=None, dtype="int64", names=None):
    """What a stranger sends of a table of Arrow with the columns 0, 1, ..."""
    count = 1 if labels is None else len(labels)
    tree = {"!library": ["pandas", "DataFrame", [
        {"!bytes": base64.b64encode(data).decode()}, None,
        [list(range(count)) if labels is None else labels, dtype, names or [None]]]]}
    return unpack(json.dumps(tree).encode(), True)


def as_value(module, *content):
    return unpack(json.dumps({"!library": [module, *content]}).encode(), True)


ELSEWHERE = ["dateutil//etc/passwd", "dateutil/../../etc/passwd", "/etc/passwd", "os/path", "a/b/c"]
NOT_KNOWN = "time zone .* arrived, but is not known"


@pytest.mark.parametrize("zone", ELSEWHERE)
def test_a_table_names_no_file_as_its_time_zone(pandas, zone):
    """pandas opens any file, and imports any module below tzdata."""
    pyarrow = pytest.importorskip("pyarrow")
    time = pyarrow.timestamp("ns", tz=zone)
    for column in (pyarrow.array([1], time), pyarrow.array([[1]], pyarrow.list_(time)),
                   pyarrow.array([{"a": 1}], pyarrow.struct([("a", time)])),
                   pyarrow.DictionaryArray.from_arrays([0], pyarrow.array([1], time))):
        data = of_arrow(pyarrow, pyarrow.table({"column 0": column}))
        for read in (as_frame, lambda data: as_value(
                "pyarrow", "Table", [{"!bytes": base64.b64encode(data).decode()}])):
            with pytest.raises(ValueNotSupported, match=NOT_KNOWN):
                read(data)
    plain = of_arrow(pyarrow, pyarrow.table({"column 0": [1]}))
    with pytest.raises(ValueNotSupported, match=NOT_KNOWN):
        as_frame(plain, [1], f"datetime64[ns, {zone}]")
    with pytest.raises(ProtocolError, match="not a time"):
        as_value("pandas", "Timestamp", [0, "ns", 0, zone])


def told_otherwise(pyarrow, pandas, change):
    """A table of which pandas has said something else."""
    table = pyarrow.Table.from_pandas(pandas.DataFrame({"column 0": [1]}))
    told = json.loads(table.schema.metadata[b"pandas"])
    table = change(table, told) or table
    return of_arrow(pyarrow, table.replace_schema_metadata({b"pandas": json.dumps(told)}))


@pytest.mark.parametrize("name, problem", [
    ("datetime64[ns, dateutil//etc/passwd]", ValueNotSupported), ("S999999999", ProtocolError),
    ("Sparse[int, __import__('os')]", ProtocolError), ("x" * 1000, ProtocolError)])
def test_what_pandas_says_of_columns_names_known_types_only(pandas, name, problem):
    pyarrow = pytest.importorskip("pyarrow")
    data = told_otherwise(pyarrow, pandas,
                          lambda table, told: told["columns"][0].update(numpy_type=name))
    with pytest.raises(problem, match="not the name of a type|" + NOT_KNOWN):
        as_frame(data)


def test_names_of_columns_are_not_evaluated_unless_they_are_plain_tuples(pandas):
    """A few thousand signs in one ended a thread with a small stack, and the process with it."""
    pyarrow = pytest.importorskip("pyarrow")

    def change(table, told):
        told["column_indexes"] *= 2
        return table.rename_columns(["-" * 300 + "1"])

    with pytest.raises(ProtocolError, match="not the name of a column in several levels"):
        as_frame(told_otherwise(pyarrow, pandas, change))
    frame = pandas.DataFrame([[1, 2]], columns=pandas.MultiIndex.from_tuples([("a", 1), ("b", 2)]))
    table = pyarrow.Table.from_pandas(frame)
    assert as_result(table).equals(table)


def test_a_frame_is_not_larger_than_its_data_allows(pandas):
    """Dicts within dicts took 2,400 times as much memory, for which no room was asked."""
    pyarrow = pytest.importorskip("pyarrow")
    kind, value = pyarrow.int8(), 1
    for _ in range(12):
        kind, value = pyarrow.struct([("a", kind)]), {"a": value}
    data = of_arrow(pyarrow, pyarrow.table({"column 0": pyarrow.array([value] * 3000, kind)}))
    with pytest.raises(ProtocolError, match="more values than data"):
        as_frame(data)
    asked: list = []
    text = of_arrow(pyarrow, pyarrow.table({"column 0": pyarrow.array([[]] * 30_000,
                                                                      pyarrow.list_(kind))}))
    tree = {"!library": ["pandas", "DataFrame", [{"!bytes": 0}, None, [[0], "int64", [None]]]]}
    unpack(json.dumps(tree).encode(), True, [text], charge=asked.append)
    assert sum(asked) > 30_000 * 100


def test_names_of_one_hash_are_not_compared_without_end(pandas):
    pyarrow = pytest.importorskip("pyarrow")
    labels = [{"!tuple": [number * (2 ** 61 - 1), 1]} for number in range(9000)]
    with pytest.raises(ValueNotSupported, match="more keys of one hash arrived"):
        as_frame(of_arrow(pyarrow, pyarrow.table({"column 0": [1]})), labels, "object", ["a", "b"])


def test_texts_are_not_taken_for_dates(pandas):
    pyarrow = pytest.importorskip("pyarrow")
    with pytest.raises(ProtocolError, match="a text where there is none"):
        as_frame(of_arrow(pyarrow, pyarrow.table({"column 0": [1]})), ["1 jan 99"],
                 "datetime64[ns]")


def test_many_small_tables_are_more_than_can_be_made_in_time():
    pyarrow = pytest.importorskip("pyarrow")
    data = base64.b64encode(of_arrow(pyarrow, pyarrow.table({"n": [1]}))).decode()
    one = {"!library": ["pyarrow", "Table", [{"!bytes": data}]]}
    assert len(unpack(json.dumps([one] * 400).encode(), True)) == 400
    with pytest.raises(ValueNotSupported, match="more small tables arrived than can be made"):
        unpack(json.dumps([one] * 1000).encode(), True)


def test_polars_reads_nothing_that_pyarrow_has_not_checked(monkeypatch):
    """Its own reader takes any size and place for true, and may end the process."""
    polars, pyarrow = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    data = of_arrow(pyarrow, pyarrow.table({"s": ["text", "more"]}))
    read: list = []
    monkeypatch.setattr(polars, "read_ipc_stream", lambda stream, **options: read.append(stream))
    for bent in (data.replace(b"textmore", b"\xff" * 8),  # no text
                 data.replace(b"\4\0\0\0\10\0\0\0", b"\4\0\0\0\xff\xff\xff\x7f")):  # its end
        assert bent != data
        with pytest.raises(ProtocolError):
            as_value("polars", "DataFrame", [{"!bytes": base64.b64encode(bent).decode()}])
    assert not read


def test_what_a_signal_handler_raises_in_a_library_is_never_taken_for_a_broken_message(monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")

    def interrupted(*args: Any) -> None:
        raise TimeoutError("of the application")

    data = of_arrow(pyarrow, pyarrow.table({"n": [1]}))
    monkeypatch.setattr(pyarrow.ipc, "open_stream", interrupted)
    with pytest.raises(TimeoutError, match="of the application"):
        as_value("pyarrow", "Table", [{"!bytes": base64.b64encode(data).decode()}])


@each("name", ["_inductor", "onnx", "dtype", "Tensor", "__getattr__"])
def test_a_tensor_names_a_type_and_nothing_that_torch_would_import(name, monkeypatch):
    imported = []
    torch = types.ModuleType("torch")
    torch.dtype = torch.Tensor = type("dtype", (), {})
    torch.__getattr__ = imported.append  # as torch's own, for modules that it loads later
    monkeypatch.setitem(sys.modules, "torch", torch)
    content = f'["{name}",[1],false,{{"!bytes":"AA=="}}]'
    with pytest.raises(ProtocolError, match="not a description of a tensor"):
        unpack(f'{{"!library":["torch","Tensor",{content}]}}'.encode(), True)
    assert not imported


def test_a_library_that_is_not_loaded_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(ValueNotSupported, match="a value of torch arrived, but that is not loaded"):
        unpack(b'{"!library": ["torch", "Tensor", []]}', True)
    assert "torch" not in sys.modules
