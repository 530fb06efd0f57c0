"""``app-net metrics``: for a file, and for Prometheus."""
from __future__ import annotations

import re
import signal
import socket
import urllib.error
import urllib.request

import pytest

from terminal import Terminal, run_net
from times import patience


def samples(text):
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    return {(sample.name, sample.labels.get("peer"), sample.labels.get("function")): sample.value
            for family in parser.text_string_to_metric_families(text)
            for sample in family.samples}


@pytest.fixture
def peer(sample_process):
    return sample_process()


def test_metrics_of_peers_are_printed_once(peer, port_range):
    place = f"127.0.0.1:{peer.address[1]}"
    run_net("call", place, "sample.multiply", "2", NET_PORT_START=port_range.start)
    done = run_net("metrics", NET_PORT_START=port_range.start)
    assert done.code == 0 and done.out.endswith("# EOF\n")
    found = samples(done.out)
    assert found["net_up", place, None] == 1
    assert found["net_call_seconds_count", place, "sample.multiply"] == 1


def test_a_peer_that_does_not_answer_is_a_metric_and_a_failure(peer, port_range):
    place, dead = (f"127.0.0.1:{port}" for port in (peer.address[1], port_range[5]))
    done = run_net("metrics", place, dead, NET_PORT_START=port_range.start)
    assert done.code == 1 and f"no answer from {dead}" in done.err
    found = samples(done.out)
    assert found["net_up", place, None] == 1 and found["net_up", dead, None] == 0


def test_no_peers_are_an_empty_text_and_a_failure(port_range):
    done = run_net("metrics", NET_PORT_START=port_range.start)
    assert done.code == 1 and samples(done.out) == {} and "doctor" in done.err


def test_metrics_are_served_for_prometheus(peer, port_range):
    place, dead = (f"127.0.0.1:{port}" for port in (peer.address[1], port_range[5]))
    with Terminal("metrics", place, dead, "--port", "0", columns=200,
                  NET_PORT_START=port_range.start) as terminal:
        terminal.wait_for("Ctrl-C ends it")
        address = re.search(r"http://127.0.0.1:\d+/metrics", terminal.text).group()
        with urllib.request.urlopen(address, timeout=patience(20)) as reply:
            assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
            found = samples(reply.read().decode())
        assert found["net_up", place, None] == 1 and found["net_up", dead, None] == 0
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(address[:-len("metrics")], timeout=patience(20))
        assert caught.value.code == 404
        caught.value.close()
        terminal.signal(signal.SIGTERM)
        assert terminal.end() == 0 and "Traceback" not in terminal.text


def test_a_port_that_is_taken_is_an_error_that_names_it(port_range):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run_net("metrics", "--port", str(taken.getsockname()[1]),
                       NET_PORT_START=port_range.start)
    assert done.code == 1 and not done.out and "cannot serve at 127.0.0.1" in done.err
