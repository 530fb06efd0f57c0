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
