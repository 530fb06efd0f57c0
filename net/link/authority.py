"""The certificate authority that a secret stands for: the same key wherever the secret is known."""
from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from typing import Any, NamedTuple

from ..errors import SettingError

#: The subject name of a certificate that is valid at any address.
PEER_NAME = "peer.app-net"

# They take 80 ms: once in a process, and for each guess of an attacker.
ROUNDS = 200_000
SALT = b"app-net authority 1"
# What the key of datagrams is derived with, from the same 80 ms of work.
DATAGRAMS = b"app-net datagrams 1"
# What the key of proofs within a host is derived with.
PROOFS = b"app-net proofs 1"

# A leaf lives as long as its process, and clocks on a LAN differ, so its dates mean nothing. A
# small computer is in 1970 until its clock is set; the links of an engine know no time before that.
BEGIN, END = datetime(1970, 1, 1), datetime(2400, 1, 1)

#: Why there is no TLS with a router.
OTHER_SECRET = "it has another secret, or a certificate of another authority"
NOT_NOW = "a certificate is not valid now, by the clock of one of the two"
NO_TLS = "it does not speak TLS"

# Order of the group of P-256. Private keys are the numbers below it.
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Leaf(NamedTuple):
    """A fresh certificate, its private key, and the authority to trust, as PEM.

    :ivar key: encrypted with ``password``, so that a file left behind is useless.
    :ivar datagrams: the key that datagrams are sealed with; the same wherever the secret is known.
    :ivar proofs: likewise the key by which processes of one host prove that they know the secret.
    """

    certificate: bytes
    key: bytes
    password: bytes
    authority: str
    datagrams: bytes
    proofs: bytes


def make_leaf(secret: str) -> Leaf:
    """A new certificate under the authority of a secret. It is shown to anything that connects, so
    it says nothing about this process.

    :raises SettingError: the library that this takes is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError as problem:
        raise SettingError(f"NET_SECRET needs the extra: pip install 'app-net[secure]' "
                           f"({problem})") from None

    derived = hashlib.pbkdf2_hmac("sha256", secret.encode("utf-8"), SALT, ROUNDS, 48)
    # 48 bytes, so that the remainder is as good as evenly spread.
    number = int.from_bytes(derived, "big") % (_ORDER - 1) + 1
    authority = ec.derive_private_key(number, ec.SECP256R1())
    leaf = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "app-net")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, PEER_NAME)])

    def certificate(subject: Any, public: Any) -> Any:
        builder = x509.CertificateBuilder(
            issuer, subject, public, x509.random_serial_number(), BEGIN, END)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        return builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False)

    root = certificate(issuer, authority.public_key()) \
        .add_extension(x509.BasicConstraints(True, 0), True) \
        .add_extension(_key_usage(x509, key_cert_sign=True, crl_sign=True), True)
    own = certificate(subject, leaf.public_key()) \
        .add_extension(x509.BasicConstraints(False, None), True) \
        .add_extension(_key_usage(x509, digital_signature=True), True) \
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH,
                                              ExtendedKeyUsageOID.SERVER_AUTH]), False) \
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(PEER_NAME)]), False)
    digest = hashes.SHA256()
    return _as_pem(leaf, own.sign(authority, digest), root.sign(authority, digest),
                   hmac.digest(derived, DATAGRAMS, "sha256"),
                   hmac.digest(derived, PROOFS, "sha256"))


def _key_usage(x509: Any, **uses: bool) -> Any:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: uses.get(name, False) for name in names})


def _as_pem(key: Any, certificate: Any, authority: Any, datagrams: bytes, proofs: bytes) -> Leaf:
    import secrets

    from cryptography.hazmat.primitives import serialization

    pem = serialization.Encoding.PEM
    password = secrets.token_hex(16).encode()
    encrypted = key.private_bytes(pem, serialization.PrivateFormat.PKCS8,
                                  serialization.BestAvailableEncryption(password))
    return Leaf(certificate.public_bytes(pem), encrypted, password,
                authority.public_bytes(pem).decode(), datagrams, proofs)
