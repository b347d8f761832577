"""Certificates of the server: those of an authority of its own, or the operator's, looked at before they are used.

The authority is not bound to names (RFC 5280, 4.2.1.10): the server's names may change, and each machine that trusts it
would have to be given a new one then. Its certificates are for servers only, and its key never leaves the directory.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from snapkeep.model.errors import InvalidInput

CA_LIFE = datetime.timedelta(days=3650)
LIFE = datetime.timedelta(days=397)
"""Of the server's certificate: clients refuse those of more than 398 days (CA/Browser Forum, ballot SC31)."""
RENEWED_BEFORE = datetime.timedelta(days=60)
_BACK = datetime.timedelta(hours=1)
"""A certificate is valid since then: the clocks of clients may be behind."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key, as OpenSSL reads them."""

    certificate: Path
    key: Path
    authority: Path | None
    """By which clients can trust it, if it is our own."""
    pem: str
    """The certificate itself."""
    names: tuple[str, ...]
    not_after: datetime.datetime


def own(directory: Path, names: Iterable[str]) -> Pair:
    """Take up the certificate in `directory`; make it, and its authority, where they are missing, ending or other."""
    directory.mkdir(mode=0o700, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    wanted = tuple(sorted(set(names)))
    authority = _Authority(directory)
    if not authority.load(now):
        authority.make(now)
    path = directory / "server.pem"
    found = _good(path, authority, wanted, now) or _make(path, authority, wanted, now)
    return Pair(path, path, authority.path, _pem(found), wanted, found.not_valid_after_utc)


def given(certificate: Path, key: Path, names: Iterable[str]) -> Pair:
    """Look at the operator's certificate. Raises InvalidInput when clients would refuse it, or it lacks a name."""
    try:
        found = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
        private = _load_key(key)
    except OSError as error:
        raise InvalidInput(f"The TLS certificate or its key cannot be read: {error}") from error
    except ValueError as error:
        raise InvalidInput(
            f"{certificate} and {key} are not a certificate and its key",
            next_step="Give the certificate, with those between it and its authority, and the unencrypted key as PEM.",
        ) from error
    if _public(private.public_key()) != _public(found.public_key()):
        raise InvalidInput(f"The key {key} is not that of the certificate {certificate}")
    now = datetime.datetime.now(datetime.UTC)
    if not found.not_valid_before_utc <= now < found.not_valid_after_utc:
        raise InvalidInput(
            f"The certificate {certificate} is valid from {found.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC only",
            next_step="Renew it, and see that this machine's clock is right.",
        )
    has = _names(found)
    if not has:
        raise InvalidInput(
            f"The certificate {certificate} names no host: clients would refuse it",
            next_step="Ask for one with the names of this server as subject alternative names.",
        )
    if missing := [name for name in names if not _covered(name, has)]:
        raise InvalidInput(f"The certificate {certificate} is not for {', '.join(missing)}, but for {', '.join(has)}")
    return Pair(certificate, key, None, _pem(found), has, found.not_valid_after_utc)


class _Authority:
    """Signs the server's certificates."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "ca.pem"
        self._key_path = directory / "ca.key"
        self.certificate: x509.Certificate
        self.key: ec.EllipticCurvePrivateKey

    def load(self, now: datetime.datetime) -> bool:
        """Say whether there is one that will outlive the next certificate."""
        with contextlib.suppress(OSError, ValueError):
            key = _load_key(self._key_path)
            self.certificate = x509.load_pem_x509_certificate(self.path.read_bytes())
            if isinstance(key, ec.EllipticCurvePrivateKey):
                self.key = key
                lasts = self.certificate.not_valid_after_utc > now + LIFE
                return lasts and _public(key.public_key()) == _public(self.certificate.public_key())
        return False

    def make(self, now: datetime.datetime) -> None:
        """Make a new one; what trusted the old one must be told."""
        self.key = ec.generate_private_key(ec.SECP256R1())
        number = x509.random_serial_number()
        name = _name(f"Snapkeep CA {number % 0x1000000:06x}")
        public = self.key.public_key()
        builder = x509.CertificateBuilder(name, name, public, number, now - _BACK, now + CA_LIFE)
        self.certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        _write(self._key_path, _private(self.key))
        _write(self.path, self.certificate.public_bytes(Encoding.PEM))


def _good(path: Path, authority: _Authority, names: tuple[str, ...], now: datetime.datetime) -> x509.Certificate | None:
    """Return the certificate in a file if it can be used for some time."""
    try:
        content = path.read_bytes()
        found = x509.load_pem_x509_certificate(content)
        found.verify_directly_issued_by(authority.certificate)
        fits = _public(load_pem_private_key(content, None).public_key()) == _public(found.public_key())
    except (OSError, ValueError, TypeError, InvalidSignature):
        return None
    lasts = found.not_valid_before_utc <= now < found.not_valid_after_utc - RENEWED_BEFORE
    return found if fits and lasts and set(_names(found)) == set(names) else None


def _make(path: Path, authority: _Authority, names: tuple[str, ...], now: datetime.datetime) -> x509.Certificate:
    """Make a certificate with a new key: both in one file, so that they always belong together."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    made = (
        x509.CertificateBuilder(
            issuer.subject, _name("Snapkeep"), key.public_key(), x509.random_serial_number(), now - _BACK, now + LIFE
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    _write(path, _private(key) + made.public_bytes(Encoding.PEM))
    return made


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = map(str, found.get_values_for_type(x509.IPAddress))
    return (*found.get_values_for_type(x509.DNSName), *addresses)


def _covered(name: str, names: Iterable[str]) -> bool:
    above = name.partition(".")[2]
    return any(item.lower() in {name.lower(), f"*.{above}".lower() if above else name} for item in names)


def _load_key(path: Path) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(path.read_bytes(), None)
    except TypeError as error:
        raise ValueError("it is encrypted") from error


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes) -> None:
    """Write a file for the owner alone: whole, or not at all."""
    temporary = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
