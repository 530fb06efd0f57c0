"""What a secret stands for is the same wherever it is known, and nowhere else."""
from __future__ import annotations

import pytest

from net.link.authority import make_leaf

pytest.importorskip("cryptography")


def test_the_key_of_datagrams_is_that_of_the_secret():
    one, same, other = (make_leaf(secret) for secret in
                        ("correct horse battery", "correct horse battery", "correct horse batterY"))
    assert one.datagrams == same.datagrams != other.datagrams
    assert len(one.datagrams) == 32
    # It opens nothing else.
    assert one.datagrams not in one.key and one.certificate != same.certificate
