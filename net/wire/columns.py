"""Long lists of values that JSON does not have, as columns of their parts.

One tagged object for each of 10,000 dataclasses would name their class and fields 10,000 times, and
Python code would take apart and put together each of them. Here values of one form make a group,
``[form, names, column, ...]``, with a list for each of their parts, and the work along the columns
is done in C. A list is ``[letters, group, ...]``: for each value in order the letter of its group,
or no letters if there is only one group.
"""
from __future__ import annotations

import collections
import datetime
import itertools
import operator
from string import ascii_letters
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from . import registered
from .checks import Malformed, a_list, a_text
from .memory import size_of, weigh_columns, weigh_group

#: Values of a list from which on columns are quicker.
MANY = 32
# Values of a group up to which they are counted when they are made.
FEW = 256

Columns = List[List[Any]]
_STRING, _LISTS = frozenset({str}), frozenset({list})


class Form(NamedTuple):
    """How values of one class become columns.

    :ivar split: values -> names and columns; None if the values are not all alike.
    :ivar join: names and columns of one length -> values.
    :ivar step: names and the number of a column -> how an error shows the way from a value to that
        part.
    """

    split: Callable[[List[Any]], Optional[Tuple[Sequence[str], Columns]]]
    join: Callable[[List[str], Columns], List[Any]]
    step: Callable[[List[str], int], str]


def _split_tuples(values: List[Tuple[Any, ...]]) -> Optional[Tuple[Sequence[str], Columns]]:
    if len(set(map(len, values))) > 1 or not values[0]:
        return None
    return (), list(map(list, zip(*values)))


def _join_tuples(names: List[str], columns: Columns) -> List[Any]:
    if names:
        raise Malformed("tuples with names")
    return list(zip(*columns))


def _split_dicts(values: List[Dict[Any, Any]]) -> Optional[Tuple[Sequence[str], Columns]]:
    names = list(values[0])
    if not names or not _STRING.issuperset(map(type, names)) \
            or not all([list(value) == names for value in values]):
        return None
    return names, [[value[name] for value in values] for name in names]


def _join_dicts(names: List[str], columns: Columns) -> List[Any]:
    if len(set(names)) != len(columns):
        raise Malformed("not a name for each column")
    values = list(map(dict.copy, itertools.repeat(dict.fromkeys(names), len(columns[0]))))
    for name, column in zip(names, columns):
        collections.deque(map(operator.setitem, values, itertools.repeat(name), column), 0)
    return values


def _split_values(values: List[Any]) -> Optional[Tuple[Sequence[str], Columns]]:
    found = registered.take_apart_all(values)
    if found is None:
        return None
    names, columns = found
    return [registered.registry.names[type(values[0])], *names], columns


def _join_values(names: List[str], columns: Columns) -> List[Any]:
    if not names:
        raise Malformed("values without a class")
    return registered.put_together_all(names[0], names[1:], columns)


#: Characters of a date and time as text, without and with microseconds.
TIMES = (19, 26)


def _split_datetimes(values: List[datetime.datetime]) -> Optional[Tuple[Sequence[str], Columns]]:
    if [value for value in values if value.tzinfo is not None or value.fold]:
        return None
    return (), [list(map(datetime.datetime.isoformat, values))]


def _join_datetimes(names: List[str], columns: Columns) -> List[Any]:
    texts, = columns
    if names or not _STRING.issuperset(map(type, texts)) or not set(map(len, texts)) <= {*TIMES}:
        raise Malformed("not dates and times without a zone")
    values = list(map(datetime.datetime.fromisoformat, texts))
    if [value for value in values if value.tzinfo is not None]:
        raise Malformed("not dates and times without a zone")
    return values


def _join_any(names: List[str], columns: Columns) -> List[Any]:
    if names or len(columns) != 1:
        raise Malformed("not one column")
    column, = columns
    return column


FORMS: Dict[str, Form] = {
    "tuple": Form(_split_tuples, _join_tuples,
                  lambda names, number: f"[{number}]"),
    "dict": Form(_split_dicts, _join_dicts, lambda names, number: f"[{names[number]!r}]"),
    "value": Form(_split_values, _join_values, lambda names, number: f".{names[number + 1]}"),
    "datetime": Form(_split_datetimes, _join_datetimes, lambda names, number: ""),
    "any": Form(lambda values: None, _join_any, lambda names, number: ""),
}
_SCALARS = frozenset({str, int, float, bool, type(None)})


def _is_sparing(form: str, columns: Sequence[List[Any]]) -> bool:
    """Whether a group may be sent as columns. With single columns within single columns, and so on,
    each row would cost one more value at every level, and a short message could stand for any
    amount of memory. So could dicts of one key, which take 100 times the memory of their text."""
    return len(columns) > 1 or form in ("datetime", "any") \
        or form != "dict" and _SCALARS.issuperset(map(type, columns[0]))


_OF_CLASS = {tuple: "tuple", dict: "dict", datetime.datetime: "datetime"}


def take_apart(packer: Any, values: Sequence[Any], depth: int) -> Optional[List[Any]]:
    """A list as columns; None where most of its values have no form.

    :param packer: has ``series`` for a column, and ``each`` for values that stay as they are.
    :raises ValueNotSupported: something in it cannot travel; the error does not say where.
    """
    values = list(values)  # which no other thread changes
    by_class: Dict[type, List[Any]] = collections.defaultdict(list)
    for value in values:
        by_class[type(value)].append(value)
    letters: Dict[type, str] = {}
    groups: List[List[Any]] = []
    for cls, alike in by_class.items():
        form = _OF_CLASS.get(cls) or ("value" if cls in registered.registry.names else None)
        if form is None or len(letters) == len(ascii_letters) - 1:
            continue
        split = FORMS[form].split(alike)
        if split is not None and _is_sparing(form, split[1]):
            letters[cls] = ascii_letters[len(letters)]
            groups.append([form, *split])
    rest = [value for value in values if type(value) not in letters] \
        if len(letters) < len(by_class) else []
    if 2 * len(rest) > len(values):
        return None
    taken = [[form, names, *[packer.series(column, depth + 1) for column in columns]]
             for form, names, columns in groups]
    if rest:
        letter = ascii_letters[len(letters)]
        letters.update(dict.fromkeys(map(type, rest), letter))
        taken.append(["any", (), packer.each(rest, depth)])
    order = map(letters.__getitem__, map(type, values)) if len(taken) > 1 else ()
    return ["".join(order), *taken]


def put_together(restorer: Any, content: Any) -> List[Any]:
    """The list that columns were made of.

    :raises Malformed: they make no sense.
    :raises Lacking: a class is not registered here, or there are too many odd groups.
    """
    letters, *groups = a_list(content, 2)
    if not a_text(letters) and len(groups) == 1:
        values = _join(restorer, *a_list(groups[0], 3))
        if len(values) < MANY:
            restorer.odd_columns(1)
        return values
    made = [_join(restorer, *a_list(group, 3)) for group in groups]
    left = dict(zip(ascii_letters, map(iter, made)))
    if len(letters) != sum(map(len, made)) or not left.keys() >= set(letters):
        raise Malformed("not a letter for each value")
    values = list(map(next, map(left.__getitem__, letters)))
    if len(values) != len(letters):
        raise Malformed("more letters of a group than it has values")
    # We send one group of each form, and of each class.
    usual = {(form, *names[:1]) if form == "value" else form for form, names, *_ in groups}
    restorer.odd_columns(len(groups) - len(usual) + (len(values) < MANY))
    restorer.weigh_more(size_of(values) - sum(map(size_of, made)))
    return values


def _join(restorer: Any, name: Any, names: Any, *columns: Any) -> List[Any]:
    """The values of a group. Few characters can stand for large values, so the memory for many is
    counted before they are made."""
    form = FORMS.get(a_text(name))
    if form is None or {*map(type, columns)} != _LISTS or len({*map(len, columns)}) != 1 \
            or not columns[0] or not _STRING.issuperset(map(type, a_list(names))):
        raise Malformed("not a group of columns of one length")
    if len(columns) == 1 and not _is_sparing(name, columns):
        raise Malformed("a single column of more than numbers and texts")
    if len(columns[0]) <= FEW:
        values = form.join(names, list(columns))
        weight = weigh_group(name, values[0], columns)
    else:
        one, = form.join(names, [column[:1] for column in columns])
        restorer.weigh_more(weigh_group(name, one, columns))
        values = form.join(names, list(columns))
        weight = 0
    restorer.weigh_more(weight + size_of(values) - weigh_columns(name, columns))
    return values


def place_of(content: List[Any], group: int, column: int, row: int) -> Tuple[int, str]:
    """The place in its list of the value that something in a row of a column belongs to, and the
    step from that value to it."""
    letters, (form, names) = content[0], content[group][:2]
    places = [place for place, letter in enumerate(letters) if letter == ascii_letters[group - 1]]
    return places[row] if letters else row, FORMS[form].step(names, column - 2)
