"""Events under a secret: the same as in the open, for processes that have it."""
from __future__ import annotations

from pathlib import Path

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


@pytest.mark.timeout(40)
def test_groups_of_events_go_by_the_certificate(peer_process, tmp_path: Path):
    from certificates import Authority

    authority = Authority(tmp_path)
    red, blue, nobody = [authority.issue(name, group=group).variables()
                         for name, group in (("red", "red"), ("blue", "blue"), ("nobody", None))]
    honest = peer_process(PUBLISHER, NET_GROUP="blue", **red)
    liar = peer_process(PUBLISHER, NET_GROUP="red", **blue)
    process = peer_process(subscriber(honest, liar, more="groups='red', "), **nobody)
    wait_for_subscribers(honest, 1)
    # It is subscribed to both, or to one, at once.
    assert ask(liar, "len(net.Peer().SUBSCRIPTIONS)") == 0
    for publisher, value in ((liar, "forged"), (honest, "true")):
        ask(publisher, f"number({value!r})")
    assert wait_until_heard(process, 1) == ["true"]
    # And the publisher knows its subscriber by the group of that one's certificate.
    assert ask(honest, "[peer.group for peer in net.Peer().SUBSCRIPTIONS['number']]") == [None]


@pytest.mark.timeout(40)
def test_peers_are_of_the_group_that_their_certificate_names(peer_process, tmp_path: Path):
    from certificates import Authority

    authority = Authority(tmp_path)
    red, blue, nobody = [authority.issue(name, group=group).variables()
                         for name, group in (("red", "red"), ("blue", "blue"), ("nobody", None))]
    honest = peer_process(NET_GROUP="blue", **red)
    peer_process(NET_GROUP="red", **blue)
    process = peer_process("import net", **nobody)
    assert ask(process, "[peer.address for peer in net.peers('red')]") == [honest.address]
    assert ask(process, "[str(peer.group) for peer in net.peers(groups=['red', 'blue'])]") == \
        ["red", "blue"]
