"""Classes that an application lets travel with @net.value."""
from __future__ import annotations

import abc
import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import sys
import threading
import typing

import pytest

import net
import travel
from net.errors import ProtocolError, ValueNotSupported
from net.identity import public_module
from net.wire import registered
from net.wire.values import pack, unpack
from each import each
from travel import as_result, assert_same


@pytest.fixture(autouse=True)
def own_classes(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(registered.registry, "classes", dict(registered.registry.classes))
    monkeypatch.setattr(registered.registry, "names", dict(registered.registry.names))
    # kinds.py looks at the module's attributes at each use.


@dataclasses.dataclass
class Job:
    name: str
    size: int = 0
    tags: list = dataclasses.field(default_factory=list)
    made: bool = dataclasses.field(default=False, init=False)

    def __post_init__(self):
        self.made = True


def test_it_can_be_used_in_every_form():
    assert net.value(Job) is Job
    assert net.value()(Job) is Job
    assert net.value("Work")(Job) is Job
    assert registered.registry.classes["Work"] is Job
    assert registered.registry.classes[f"{__name__}.Job"] is Job


def test_a_dataclass_looks_as_documented():
    assert pack(travel.Point(1, (2,)), "result").text == \
        '{"!value":{"class":"travel.Point","x":1,"y":{"!tuple":[2]}}}'
    assert pack(travel.Color.RED,
                "result").text == '{"!value":{"class":"travel.Color","name":"RED"}}'
    assert pack(travel.Access.READ | travel.Access.RUN, "result").text == \
        '{"!value":{"class":"travel.Access","value":5}}'
    assert pack(travel.Pair(1, 2), "result").text == \
        '{"!value":{"class":"travel.Pair","left":1,"right":2}}'


def test_neither_init_nor_post_init_runs_on_arrival():
    net.value(Job)
    job = Job("a", 1, [2])
    job.made = False
    arrived = as_result(job)
    assert arrived == job and arrived.made is False


def test_classes_of_all_sorts_arrive_as_they_were():
    @net.value
    @dataclasses.dataclass(frozen=True, order=True)
    class Fixed:
        a: int

    @net.value
    @dataclasses.dataclass
    class Slotted:
        __slots__ = ("a", "b")
        a: int
        b: typing.Any

    @net.value
    @dataclasses.dataclass
    class Nothing:
        pass

    T = typing.TypeVar("T")

    @net.value
    @dataclasses.dataclass
    class Box(typing.Generic[T]):
        content: T

    @net.value
    @dataclasses.dataclass
    class Child(Job):
        more: dict = dataclasses.field(default_factory=dict)

    @net.value
    class Spot(typing.NamedTuple):
        x: int
        y: int = 5

    @net.value
    class Empty(enum.Enum):
        A = 1
        B = 1

    @net.value
    class Text(str, enum.Enum):
        A = "a"

    @net.value
    class Bits(enum.IntFlag):
        ONE = 1
        TWO = 2

    @net.value
    class Odd(enum.Enum):
        name_ = 1
        LIST = [1, 2]

    for value in (Fixed(1), Slotted(1, [Fixed(2)]), Nothing(), Box([1, (2,)]), Box(Box(None)),
                  Child("x", more={1: 2}), Spot(1), Spot([1], 2), Empty.A, Empty.B, Text.A, Bits(0),
                  Bits.ONE | Bits.TWO, Bits(3), Odd.LIST, Odd.name_, {Fixed(1): Text.A}):
        assert_same(as_result(value), value)
        assert_same(as_result([(value,)]), [(value,)])


def test_an_enum_member_with_a_property_called_name_travels_by_its_name():
    @net.value
    class Renamed(enum.Enum):
        A = 1

        @property
        def name(self):
            return "something else"

        @property
        def value(self):
            raise RuntimeError

    assert as_result(Renamed.A) is Renamed.A


def test_values_of_a_subclass_need_to_be_registered_themselves():
    class Special(travel.Point):
        pass

    with pytest.raises(ValueNotSupported, match="Special"):
        as_result(Special(1))


@each("thing", [
    int, object, object(), 5, None.__class__, lambda: None, type("Plain", (), {}), tuple, dict,
    abc.ABC, enum, [], b"name"])
def test_only_dataclasses_enums_and_named_tuples_can_be_registered(thing):
    with pytest.raises(TypeError, match="neither a dataclass, an enum nor a named tuple"):
        net.value(thing)


@each("base", [dict, list, Exception, str, ValueError])
def test_a_dataclass_that_is_more_than_its_fields_is_refused(base):
    with pytest.raises(TypeError, match="more than its fields"):
        net.value(dataclasses.make_dataclass("More", ["a"], bases=(base,)))


def test_an_empty_name_is_refused():
    with pytest.raises(TypeError, match="empty"):
        net.value("")(Job)


def test_a_name_that_is_taken_is_refused():
    net.value("Taken")(Job)
    with pytest.raises(TypeError, match="'Taken' is taken by"):
        net.value("Taken")(travel.Point)
    assert registered.registry.classes["Taken"] is Job


def test_a_class_that_is_defined_again_takes_the_place_of_the_old_one():
    def make():
        return dataclasses.make_dataclass("Again", ["a"], namespace={"__module__": "app"})

    old, new = net.value(make()), net.value(make())
    assert old is not new
    assert type(as_result(new(1))) is new
    assert type(as_result(old(1))) is new


def test_the_main_module_has_one_name_in_all_processes():
    cls = dataclasses.make_dataclass("Main", ["a"])
    cls.__module__ = "__mp_main__"  # what a spawned child calls it
    net.value(cls)
    assert registered.registry.classes[public_module("__main__") + ".Main"] is cls


def test_a_field_without_a_value_is_named():
    net.value(Job)
    job = Job("a")
    del job.tags
    del job.__class__.__dataclass_fields__["tags"].default  # no class attribute helps out
    with pytest.raises(ValueNotSupported, match=r"^result\[0\]: Job has a field without a value"):
        as_result([job])


@each("text, error, message", [
    ('{"class":"travel.Point","x":1}', ValueNotSupported,
     "has the parts x, y where it arrived, but x arrived"),
    ('{"class":"travel.Point","x":1,"y":2,"z":3}', ValueNotSupported, "but x, y, z arrived"),
    ('{"class":"travel.Pair","left":1}', ValueNotSupported, "left, right where it arrived"),
    ('{"class":"os.system"}', ValueNotSupported, "is not registered with @net.value"),
    ('{"class":"builtins.int"}', ValueNotSupported, "is not registered with @net.value"),
    ('{"class":"travel.Color","name":"GREEN"}', ValueNotSupported, "no such member"),
    ('{"class":"travel.Color","name":"__class__"}', ValueNotSupported, "no such member"),
    ('{"class":"travel.Color"}', ProtocolError, "cannot be read"),
    ('{"class":"travel.Access","value":"x"}', ProtocolError, "whole number"),
    ('{"class":"travel.Access","value":64}', ValueNotSupported, "unknown bits"),
    ('{"class":["travel.Color"],"name":"RED"}', ProtocolError, "not text"),
    ('[]', ProtocolError, "cannot be read"),
])
def test_descriptions_without_sense_are_refused(text, error, message):
    with pytest.raises((ProtocolError, ValueNotSupported), match=message) as caught:
        unpack(b'{"!value":' + text.encode() + b"}", True)
    assert isinstance(caught.value, error)


def test_a_name_from_the_wire_is_cut_before_it_is_shown():
    with pytest.raises(ValueNotSupported) as caught:
        unpack(b'{"!value":{"class":"' + b"x" * 5000 + b'"}}', True)
    assert len(str(caught.value)) < 400


def test_a_class_that_looks_like_a_named_tuple_travels_by_its_fields():
    assert registered.take_apart(travel.Pair(1, 2)) == {"left": 1, "right": 2}
    found = registered.put_together({"class": "travel.Pair", "right": 2, "left": 1},
                                    registered.Combinations(100))
    assert type(found) is travel.Pair and found == (1, 2)


@dataclasses.dataclass
class Extra(travel.Point):
    @functools.cached_property
    def area(self):
        return self.y * 2

    def method(self):
        pass


def test_what_a_value_holds_besides_its_fields_is_named_and_not_lost():
    for cls in (travel.Point, Extra):
        net.value(cls)
        job = cls("a")
        job.owner = "me"
        with pytest.raises(ValueNotSupported) as caught:
            as_result([job])
        assert str(caught.value) == f"result[0]: {cls.__name__} has the attribute 'owner' " \
            f"besides its fields, which would be lost; make it a field"
        del job.owner
        assert as_result(job) == job
    job.method = 5
    with pytest.raises(ValueNotSupported, match="'method'"):
        as_result(job)


def test_what_a_property_has_cached_is_made_anew():
    net.value(Extra)
    job = Extra("a", 5)
    assert job.area == 10 and "area" in vars(job)
    arrived = as_result(job)
    assert arrived == job and "area" not in vars(arrived) and arrived.area == 10


def test_slots_and_attributes_of_all_sorts_that_are_no_fields_are_named():
    class Base:
        __slots__ = ("kept", "__dict__")

    @net.value
    @dataclasses.dataclass
    class Slotted(Base):
        __slots__ = ("a",)
        a: int

    @net.value
    class Named(collections.namedtuple("Named", "x")):
        pass

    slotted = Slotted(1)
    assert as_result(slotted) == slotted
    slotted.kept = 5
    with pytest.raises(ValueNotSupported, match="'kept'"):
        as_result(slotted)
    named = Named(1)
    assert type(as_result(named)) is Named
    named.more = 5
    with pytest.raises(ValueNotSupported, match="'more'"):
        as_result(named)


def test_a_dataclass_that_is_laid_out_in_c_is_refused():
    bases = [datetime.date, threading.local]
    if sys.implementation.name == "cpython":  # PyPy's are not; what they hold is found on its way
        bases += [datetime.tzinfo, decimal.Decimal]
    for base in bases:
        with pytest.raises(TypeError, match="more than its fields"):
            net.value(dataclasses.make_dataclass("More", ["a"], bases=(base,)))
    abstract = dataclasses.make_dataclass("Abstract", ["a"], bases=(abc.ABC,), namespace={
        "method": abc.abstractmethod(lambda self: None)})
    assert net.value(abstract) is abstract


def test_a_wrong_type_hint_is_no_wrong_value():
    net.value(Job)
    job = Job(5, "x", collections.deque())  # nobody checks annotations here, nor there
    assert_same(as_result(job), job)


def test_a_field_that_is_computed_travels_as_it_is_read():
    @net.value
    @dataclasses.dataclass
    class Shown:
        size: int

        def __getattribute__(self, name: str) -> object:
            found = object.__getattribute__(self, name)
            return found + 1 if name == "size" else found

    class Doubled:
        def __get__(self, value: object, cls: object) -> int:
            return 2 * value.__dict__["size"]

        def __set__(self, value: object, size: int) -> None:
            value.__dict__["size"] = size

    @net.value
    @dataclasses.dataclass
    class Kept:
        size: int

    Kept.size = Doubled()
    assert registered.take_apart(Shown(1)) == {"size": 2}
    assert registered.take_apart(Kept(1)) == {"size": 2}
