"""Functions and iterators that a caller lends for the length of a call."""
from __future__ import annotations

import functools
import io
import itertools
import os
import threading
import time
import uuid
from typing import Any, List

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

import forms
import net
from net.process import process as here
from processes import run_python
from times import patience
from travel import assert_same


class Tool:
    """Its methods are lent."""

    def __init__(self) -> None:
        self.seen: List[Any] = []

    def add(self, value: Any, *, by: int = 1) -> Any:
        self.seen.append((value, by))
        return value + by


# --------------------------------------------------------------------------------- what can be lent

def test_functions_of_every_kind_are_called_with_what_the_function_there_gives(far):
    tool = Tool()
    assert forms.apply(lambda *args, **kwargs: (args, kwargs), 1, (2,), key={3}, peer=far.id) == (
        (1, (2,)), {"key": {3}})
    assert forms.apply(tool.add, 5, by=2, peer=far.id) == 7 and tool.seen == [(5, 2)]
    assert forms.apply(functools.partial(tool.add, by=3), 5, peer=far.id) == 8
    assert forms.apply(max, 5, 7, peer=far.id) == 7
    assert forms.apply(str.upper, "text", peer=far.id) == "TEXT"
    assert forms.apply([].append, 5, peer=far.id) is None
    assert forms.apply(tool.add, 5, peer=far.id) == 6


def test_a_connected_function_can_be_lent(far):
    # It runs here, though there is one of the same name there.
    import os

    assert forms.apply(forms.where, peer=far.id) == os.getpid()


def made() -> Any:
    yield from (1, 2, 3)


@pytest.mark.parametrize("iterator", [
    lambda: iter([1, 2, 3]), lambda: iter((1, 2, 3)), lambda: iter({1: 0, 2: 0, 3: 0}),
    lambda: iter(range(1, 4)), made, lambda: (number for number in (1, 2, 3)),
    lambda: map(int, "123"), lambda: itertools.chain([1], [2, 3]), lambda: zip([1, 2, 3]),
    lambda: filter(None, [1, 2, 0, 3]),
], ids=["list", "tuple", "dict", "range", "generator", "expression", "map", "chain", "zip",
        "filter"])
def test_iterators_of_every_kind_are_gathered_there(far, iterator):
    assert forms.gather(iterator(), peer=far.id) == list(iterator())


def test_an_open_file_is_lent_as_the_iterator_of_its_lines(far, tmp_path):
    path = tmp_path / "lines.txt"
    lines = [f"line {number}\n" for number in range(500)]
    path.write_text("".join(lines))
    with path.open() as file:
        assert forms.gather(file, peer=far.id) == lines
    with path.open("rb") as binary:
        assert forms.gather(binary, peer=far.id) == [line.encode() for line in lines]
    assert forms.gather(io.StringIO("a\nb"), peer=far.id) == ["a\n", "b"]


@pytest.mark.parametrize("mode", ["r", "rb"])
def test_the_lines_of_a_pipe_arrive_as_they_are_written(far, mode):
    reader, writer = os.pipe()
    with open(writer, "w", buffering=1) as written, open(reader, mode) as lines:
        def use(line: Any) -> None:
            seen.append(line)
            if len(seen) < 3:
                written.write(f"{len(seen)}\n")  # only now that the one before has come
            else:
                written.close()
        seen: List[Any] = []
        written.write("0\n")
        assert forms.apply_each.on(far.id, timeout=patience(10))(use, lines) == 3
    assert [int(line) for line in seen] == [0, 1, 2]


def test_what_is_lent_may_be_anywhere_in_the_arguments(far):
    found = forms.apply_nested({"tools": [(str.upper, {"deep": [iter("ab")]})]}, peer=far.id)
    assert found == ["X", ["a", "b"]]
    assert forms.count_of(functions=[len, len], peer=far.id) == 2


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000])
def test_every_number_of_items_arrives_in_order(far, count):
    assert forms.gather(iter(list(range(count))), peer=far.id) == list(range(count))
    assert forms.gather((number for number in range(count)), peer=far.id) == list(range(count))


def test_of_a_generator_no_more_is_made_than_is_asked_for(far):
    made: List[int] = []

    def generate() -> Any:
        for number in range(100):
            made.append(number)
            yield number
    iterator = generate()
    assert forms.take(iterator, 3, peer=far.id) == [0, 1, 2]
    assert made == [0, 1, 2]
    assert next(iterator) == 3  # it can still be used here


def test_values_keep_their_types_both_ways(far):
    numpy = pytest.importorskip("numpy")
    assert len(list(forms.arrays(1, 1, peer=far.id))) == 1  # numpy is loaded there
    for value in ((1, {2}), b"x" * 10_000, {1: None}, "ä" * 5000, 10 ** 700):
        assert_same(forms.apply(lambda one: one, value, peer=far.id), value)
        assert_same(forms.gather(iter([value, value]), peer=far.id), [value, value])
    array = numpy.arange(1_000_000)
    assert numpy.all(forms.apply(lambda one: one + 1, array, peer=far.id) == array + 1)


def test_a_thousand_things_are_lent_and_not_one_more(far):
    assert forms.count_of([len] * 1000, peer=far.id) == 1000
    with pytest.raises(net.ValueNotSupported, match="at most 1000"):
        forms.count_of([len] * 1001, peer=far.id)


def test_a_stream_is_made_of_a_lent_iterator(far):
    there = forms.doubled(iter(range(3000)), peer=far.id)
    assert list(there) == [2 * number for number in range(3000)]
    there = forms.doubled((number for number in itertools.count()), peer=far.id)
    assert list(itertools.islice(there, 5)) == [0, 2, 4, 6, 8]
    there.close()
    assert forms.where(peer=far.id) == far.pid


def test_a_generator_of_a_third_peer_is_lent(hops):
    assert forms.gather(forms.count_to(300, peer=hops[1].id), peer=hops[0].id) == list(range(300))


# ---------------------------------------------------------------------------------------- errors

class Mine(Exception):
    """Known on this side alone."""


@pytest.mark.parametrize("error, name", [
    (ValueError("x", 1), "ValueError"), (KeyError("k"), "KeyError"),
    (OSError(2, "no"), "FileNotFoundError"), (ZeroDivisionError(), "ZeroDivisionError"),
    (Mine("x"), "Exception"),
])
def test_what_a_lent_function_raises_is_raised_there_and_back_here(far, error, name):
    def fail() -> None:
        raise error
    assert forms.apply_caught(fail, peer=far.id)[0] == name
    with pytest.raises(type(error) if type(error) is not Mine else net.RemoteError) as caught:
        forms.apply(fail, peer=far.id)
    if type(error) is not Mine:
        assert caught.value.args == error.args
    assert forms.where(peer=far.id) == far.pid


def test_what_a_lent_iterator_raises_after_some_items_comes_after_them(far):
    def generate() -> Any:
        yield 1
        yield 2
        raise KeyError("x")
    assert forms.gather_caught(generate(), peer=far.id) == [1, 2, "KeyError"]
    with pytest.raises(KeyError):
        forms.gather(generate(), peer=far.id)


class Failing(io.IOBase):
    """A file that breaks after three lines."""

    def __init__(self) -> None:
        self.left = 3

    def __next__(self) -> bytes:
        if not self.left:
            raise OSError(5, "broken")
        self.left -= 1
        return b"line"


def test_what_a_file_has_given_before_it_breaks_comes_before_that(far):
    assert forms.gather_caught(Failing(), peer=far.id) == [b"line"] * 3 + ["OSError"]


def test_items_before_one_that_cannot_travel_come_before_the_error(far):
    found = forms.gather_caught(iter([1, 2, threading.Lock(), 4]), peer=far.id)
    assert found == [1, 2, "TypeError"]


def test_items_that_are_too_much_together_come_one_after_the_other(far):
    items = ["x" * 350_000] * 64
    assert forms.lengths(iter(items), peer=far.id) == [350_000] * 64


def test_large_items_do_not_all_come_together(far):
    items = [bytes(2 ** 20)] * 10
    iterator = iter(items)
    assert len(forms.take(iterator, 1, peer=far.id)) == 1
    assert len(list(iterator)) >= 8


def test_a_stop_iteration_of_a_lent_function_is_no_end(far):
    def stop() -> None:
        raise StopIteration(5)
    with pytest.raises(RuntimeError):
        forms.gather(forms_of(stop), peer=far.id)
    assert forms.apply_caught(stop, peer=far.id)[0] in ("StopIteration", "RuntimeError")


def forms_of(function: Any) -> Any:
    """A generator in which a function raises StopIteration, which is a RuntimeError outside."""
    yield 1
    function()


def test_an_interrupt_of_the_caller_within_a_lent_function_is_the_callers(far, key):
    def interrupt() -> None:
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        forms.apply(interrupt, peer=far.id)
    assert forms.where(peer=far.id) == far.pid


def test_an_answer_that_cannot_travel_is_a_typed_error(far):
    with pytest.raises((net.ValueNotSupported, TypeError)):
        forms.apply(threading.Lock, peer=far.id)
    with pytest.raises((net.ValueNotSupported, TypeError)):
        forms.gather(iter([threading.Lock()]), peer=far.id)
    assert forms.where(peer=far.id) == far.pid


def test_an_argument_for_a_lent_function_that_cannot_travel_is_a_typed_error(far):
    with pytest.raises(net.ValueNotSupported):
        forms.apply_lock(lambda lock: 1, peer=far.id)
    assert forms.where(peer=far.id) == far.pid


# ------------------------------------------------------------------------------- threads and time

def test_several_threads_there_use_it_at_the_same_time(far):
    assert forms.apply_in_threads(lambda number: number * 2, 30, peer=far.id) == [
        number * 2 for number in range(30)]


def test_after_the_end_of_the_call_it_raises_a_typed_error(far):
    for lent in (lambda: 1, iter([1, 2]), made()):
        forms.keep(lent, peer=far.id)
        with pytest.raises(net.NetError, match="only while the call runs"):
            forms.use_kept(peer=far.id)
    assert forms.where(peer=far.id) == far.pid


def test_a_thread_that_asks_when_the_call_ends_leaves_the_next_call_right(far):
    """Its answer may come when nobody waits for it any more."""
    def slow(number: int) -> int:
        time.sleep(0.01)
        return number
    for _ in range(10):
        assert forms.leave_asking(slow, 5, peer=far.id) == "left"
        assert forms.where(peer=far.id) == far.pid


def test_a_call_that_ends_leaves_nobody_asking(far, key):
    assert forms.leave_asking(lambda number: number, 3, key, peer=far.id) == "left"
    found = forms.noted(key, 3, peer=far.id)
    assert len(found) == 3


def test_the_deadline_of_a_call_is_that_of_what_it_lends(far):
    started = time.monotonic()
    with pytest.raises(net.NetError):
        forms.apply.on(far.id, timeout=0.3)(lambda: time.sleep(0.1) or forms.sleep_here(0.5))
    assert time.monotonic() - started < patience(2)
    assert forms.where(peer=far.id) == far.pid


def test_time_and_end_of_the_call_are_known_in_what_it_lends(far):
    assert forms.apply(net.remaining, peer=far.id) is None
    assert 0 < forms.apply.on(far.id, timeout=5)(net.remaining) <= 5
    assert forms.apply.on(far.id, timeout=5)(net.cancelled) is False
    assert net.remaining() is None


# ----------------------------------------------------------------------------------- further hops

def test_what_was_lent_can_be_handed_on_to_a_third_peer(hops):
    tool = Tool()
    assert forms.hand_on(hops[1].id, tool.add, 5, peer=hops[0].id) == 6
    assert tool.seen == [(5, 1)]
    with pytest.raises(KeyError):
        forms.hand_on(hops[1].id, {}.__getitem__, "x", peer=hops[0].id)
    assert forms.hand_on(hops[1].id, lambda *args: args, 1, (2,), peer=hops[0].id) == (1, (2,))


def test_a_lent_iterator_can_be_handed_on(hops):
    assert forms.gather_at(hops[1].id, iter(range(200)), peer=hops[0].id) == list(range(200))


@pytest.mark.parametrize("depth", [1, 5, 50, 70])
def test_a_lent_function_may_call_that_peer_again_which_calls_it_again(far, depth):
    def again(left: int) -> int:
        return 0 if not left else 1 + forms.bounce(again, left - 1, peer=far.id)
    assert forms.bounce(again, depth, peer=far.id) == depth


def test_a_lent_function_without_end_is_a_recursion_error(forms_process, far):
    # In a process of its own: this deep down, what pytest does with a destructor that fails, fails.
    caller = forms_process(f"""
def again(left):
    return 1 + bounce(again, left, peer={far.id!r})
""")
    caller.execute(f"""
try:
    bounce(again, 1, peer={far.id!r})
except RecursionError:
    print("too deep", flush=True)
""")
    assert caller.read_line(15) == "too deep"
    assert forms.where(peer=far.id) == far.pid


def test_two_peers_that_wait_for_each_other_come_to_an_end(hops):
    def there(left: int) -> int:
        return 0 if not left else 1 + forms.bounce(there, left - 1, peer=hops[left % 3].id)
    assert forms.bounce(there, 30, peer=hops[0].id) == 30


def test_it_works_for_a_caller_that_cannot_be_connected_to(far):
    done = run_python("-c", f"""
import net, forms
assert forms.apply(lambda value: value + 1, 5, peer={far.id!r}) == 6
assert forms.gather(iter("abc"), peer={far.id!r}) == ["a", "b", "c"]
assert not net.Peer().launched
""", NET_LAUNCH="no")
    assert done.stderr == ""


def test_one_connection_carries_it_all(forms_process):
    process = forms_process()
    for _ in range(3):
        forms.apply(lambda: forms.gather(iter([1]), peer=process.id), peer=process.id)
    pool = here.client._find_pool(process.id)
    assert len(pool._idle) <= 2


# --------------------------------------------------------------------------------- what cannot be

def test_what_outlives_a_call_cannot_hold_it(far):
    for lent in (lambda: 1, iter([1])):
        with pytest.raises(net.ValueNotSupported) as caught:
            forms.give_back(lent, peer=far.id)
        assert caught.value.ran == "yes" and caught.value.path.startswith("result")
        with pytest.raises(net.ValueNotSupported):
            net.event("lending")(lambda: ((lent,), {}))()
    assert forms.where(peer=far.id) == far.pid


@pytest.mark.parametrize("value", [threading.Lock(), object(), Tool(), made, type(made())],
                         ids=lambda value: type(value).__name__)
def test_what_is_neither_a_function_nor_an_iterator_is_no_argument(far, value):
    if callable(value):
        assert forms.apply_caught(value, peer=far.id) is not None
        return
    with pytest.raises(net.ValueNotSupported):
        forms.apply(value, peer=far.id)


def test_a_call_with_lent_arguments_is_never_sent_twice(forms_process, key):
    process = forms_process()
    seen: List[int] = []

    def lose() -> None:
        seen.append(1)
        process.kill()
    with pytest.raises(net.PeerLost) as caught:
        forms.apply(lose, peer=process.id)
    assert caught.value.ran == "maybe" and seen == [1]


def test_a_function_there_learns_that_its_caller_was_killed(forms_process, far, key):
    caller = forms_process("""
def slow():
    print("asked", flush=True)
    time.sleep(60)
""")
    # Behind its line that says that it is ready.
    caller.execute(f"asks_and_notes(slow, {key!r}, peer={far.id!r})")
    assert caller.read_line() == "asked"
    caller.kill()
    started = time.monotonic()
    assert forms.noted(key, peer=far.id) == ["CallCancelled"]
    assert time.monotonic() - started < patience(1.5)


# ------------------------------------------------------------------------------- random programs

uses = st.lists(st.one_of(
    st.tuples(st.just("call"), st.integers(-3, 3)),
    st.tuples(st.just("next")), st.tuples(st.just("rest")),
    st.tuples(st.just("catch"), st.integers(-3, 3))), max_size=8)
lent_items = st.lists(st.one_of(st.integers(), st.text(max_size=3), st.tuples(st.integers())),
                      max_size=5)


@hypothesis.settings(max_examples=60, deadline=None)
@given(program=uses, items=lent_items, fails=st.booleans(), ready=st.booleans())
def test_a_function_uses_there_what_it_is_given_as_it_does_here(far, program, items, fails, ready):
    def trace(**where: Any) -> List[Any]:
        calls: List[Any] = []

        def function(number: int) -> Any:
            calls.append(number)
            if number < 0:
                raise ValueError(number)
            return (number, calls[:])

        def iterate() -> Any:
            yield from items
            if fails:
                raise KeyError("end")
        try:
            found = forms.use(program, function, iter(items) if ready else iterate(), **where)
        except BaseException as problem:
            found = [next(cls.__name__ for cls in type(problem).__mro__
                          if cls.__module__ == "builtins"), problem.args]
        return [found, calls]
    assert_same(trace(peer=far.id), trace())


def test_many_calls_with_lent_arguments_at_once(far):
    found: List[Any] = []

    def run(number: int) -> None:
        name = uuid.uuid4().hex
        found.append(forms.apply_in_threads(lambda one: (name, number, one), 4, peer=far.id) == [
            (name, number, one) for one in range(4)])
    running = [threading.Thread(target=run, args=(number,)) for number in range(15)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert found == [True] * 15
