"""Events under a secret: the same as in the open, for those who have it."""
from __future__ import annotations

import pytest

from hearing import PUBLISHER, ask, subscriber, wait_for_subscribers, wait_until_heard

SECRET = "correct horse battery"


@pytest.mark.timeout(40)
def test_events_under_a_secret_reach_those_who_have_it_and_nobody_else(peer_process):
    publisher = peer_process(PUBLISHER, NET_SECRET=SECRET)
    heard = [peer_process(subscriber(publisher), NET_SECRET=SECRET) for _ in range(2)]
    stranger = peer_process(subscriber(publisher))
    wait_for_subscribers(publisher, 2)
    ask(publisher, "many(0, 3000)")
    for process in heard:
        assert wait_until_heard(process, 3000) == list(range(3000))
    assert ask(stranger, "len(heard)") == 0
