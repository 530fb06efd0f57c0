"""What a secret stands for is the same wherever it is known, and nowhere else."""
from __future__ import annotations

import pytest

from net.link.authority import make_leaf

load_pem_x509_certificate = pytest.importorskip("cryptography.x509").load_pem_x509_certificate

SECRET = "correct horse battery staple"


def test_what_a_secret_stands_for_is_the_same_in_every_release():
    """As docs/protocol.rst says how it is made: others make it, too."""
    leaf = make_leaf(SECRET)
    assert leaf.datagrams.hex() == \
        "5152e0c72b8286daa1bd79955f746f6c8bf1376ddc239fc528f9efb78d69805a"
    assert leaf.proofs.hex() == "ef99b40bfd45d8734e43915c8f056408f6be5998899700850aa1f1136d38f373"
    authority = load_pem_x509_certificate(leaf.authority.encode()).public_key().public_numbers()
    assert authority.x == 0x6fa9f93d2d41c81cc66b882f47cb2c84a2bbe586f6e017e9f3f0dc6d61d1a641


def test_the_key_of_datagrams_is_that_of_the_secret():
    one, same, other = (make_leaf(secret) for secret in (SECRET, SECRET, SECRET[:-1] + "E"))
    assert one.datagrams == same.datagrams != other.datagrams
    assert len(one.datagrams) == 32
    # It opens nothing else.
    assert one.datagrams not in one.key and one.certificate != same.certificate
