"""What is remembered, and how much of it."""
from __future__ import annotations

import pytest

from net.wire.memo import Memo


def test_what_was_made_of_a_key_is_not_made_again():
    made = []
    remembered = Memo(lambda key: made.append(key) or [key], 10)
    assert remembered["a"] is remembered["a"]
    assert remembered["b"] == ["b"]
    assert made == ["a", "b"]


def test_there_are_never_more_keys_than_allowed():
    remembered = Memo(str, 3)
    for number in range(20):
        assert remembered[number] == str(number)
        assert len(remembered) <= 3


def test_what_cannot_be_made_is_not_remembered():
    remembered = Memo(int, 3)
    with pytest.raises(ValueError):
        remembered["x"]
    assert not remembered
