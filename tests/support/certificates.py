"""Certificates of all kinds for the tests, good and bad. Needs cryptography."""
from __future__ import annotations

import ipaddress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence

import pytest

x509 = pytest.importorskip("cryptography.x509")

from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: E402

PEM = serialization.Encoding.PEM
BOTH = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)


class Files(NamedTuple):
    """Paths as the settings want them."""

    tls_cert: str
    tls_key: str
    tls_ca: str

    def variables(self) -> dict[str, str]:
        """As NET_ variables."""
        return {f"NET_{name.upper()}": value for name, value in self._asdict().items()}


class Authority:
    """A certificate authority with its files in a folder."""

    def __init__(self, folder: Path, name: str = "studio") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._certificate = _builder(self._name, self._name, self._key).add_extension(
            x509.BasicConstraints(True, None), True).sign(self._key, hashes.SHA256())
        self.path = folder / f"{name}-ca.pem"
        self.path.write_bytes(self._certificate.public_bytes(PEM))

    def issue(self, name: str, names: Sequence[str] = ("127.0.0.1",), group: Optional[str] = None,
              uses: Sequence[Any] = BOTH, begin: int = 2001, end: int = 2050,
              password: bytes = b"") -> Files:
        """A certificate for these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name, group), self._name, key, begin, end)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(one) for one in names]), False)
        if uses:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(uses)), False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return self._write(name, certificate, key, password)

    def _write(self, name: str, certificate: Any, key: Any, password: bytes) -> Files:
        encryption = serialization.BestAvailableEncryption(password) if password \
            else serialization.NoEncryption()
        cert, private = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert.write_bytes(certificate.public_bytes(PEM))
        private.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption))
        return Files(str(cert), str(private), str(self.path))


def _builder(subject: Any, issuer: Any, key: Any, begin: int = 2001, end: int = 2050) -> Any:
    return x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(),
                                   datetime(begin, 1, 1), datetime(end, 1, 1))


def _name(text: str, group: Optional[str] = None) -> Any:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, text)]
    if group is not None:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, group))
    return x509.Name(parts)


def _general(text: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
