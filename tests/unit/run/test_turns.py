"""What waits comes by the turns of its sources."""
from net.run.turns import Turns


def taken(turns: "Turns[int]") -> list:
    return [turns.take() for _ in range(len(turns))]


def test_sources_take_turns_and_each_keeps_its_order():
    turns: Turns[int] = Turns()
    for number in range(4):
        turns.put("many", number)
    turns.put("few", 10)
    turns.put("two", 20)
    turns.put("two", 21)
    assert len(turns) == 7
    assert taken(turns) == [0, 10, 20, 1, 21, 2, 3]
    assert len(turns) == 0


def test_a_source_that_comes_while_others_wait_is_next_but_those_who_were_there():
    turns: Turns[int] = Turns()
    for number in range(3):
        turns.put("many", number)
    assert turns.take() == 0
    turns.put("new", 10)
    assert taken(turns) == [1, 10, 2]


def test_given_up_is_the_oldest_of_the_source_that_has_most():
    turns: Turns[int] = Turns()
    turns.put("few", 10)
    for number in range(3):
        turns.put("many", number)
    assert [turns.drop(), turns.drop()] == [0, 1]
    assert taken(turns) == [10, 2]
    turns.put("one", 5)
    assert turns.drop() == 5 and not len(turns)
