"""A certificate authority of the simulator's own, so that clients can verify TLS as they do in production."""

import datetime
import hashlib
import ipaddress
import json
import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.x509 import GeneralName, KeyUsage

DAYS = 3650
RENEW_BEFORE_SECONDS = 30 * 86400


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files of one simulator, and the SHA-256 of the server's certificate (hex)."""

    ca: Path
    certificate: Path
    key: Path
    fingerprint: str


def certificates(directory: Path, names: list[str]) -> Certificates:
    """Take up the certificates in ``directory``, or make them when they are missing, ending or lack a name."""
    directory.mkdir(parents=True, exist_ok=True)
    notes = directory / "made.json"
    wanted = sorted(set(names))
    if not _still_good(notes, wanted):
        not_after = _make(directory, wanted)
        notes.write_text(json.dumps({"names": wanted, "not_after": not_after}))
    pem = (directory / "server.pem").read_text()
    der = ssl.PEM_cert_to_DER_cert(pem[: pem.index("-----END CERTIFICATE-----") + 26])
    return Certificates(
        ca=directory / "ca.pem",
        certificate=directory / "server.pem",
        key=directory / "server.key",
        fingerprint=hashlib.sha256(der).hexdigest(),
    )


def _still_good(notes: Path, names: list[str]) -> bool:
    try:
        made = json.loads(notes.read_text())
    except (OSError, ValueError):
        return False
    return set(names) <= set(made["names"]) and made["not_after"] - time.time() > RENEW_BEFORE_SECONDS


def _make(directory: Path, names: list[str]) -> float:
    from cryptography import x509  # noqa: PLC0415 - slow to import, and needed only once per data directory
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415

    now = datetime.datetime.now(datetime.UTC)
    begin, end = now - datetime.timedelta(days=1), now + datetime.timedelta(days=DAYS)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Simulator CA")])
    ca_identifier = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        x509.CertificateBuilder(ca_name, ca_name, ca_key.public_key(), x509.random_serial_number(), begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(ca_identifier, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulator")])
    server = (
        x509.CertificateBuilder(ca_name, subject, key.public_key(), x509.random_serial_number(), begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_identifier), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(directory / "server.key", private)
    (directory / "server.pem").write_bytes(server.public_bytes(pem))
    (directory / "ca.pem").write_bytes(ca.public_bytes(pem))
    return end.timestamp()


def _usage(*, ca: bool) -> "KeyUsage":
    from cryptography import x509  # noqa: PLC0415

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


def _general_name(name: str) -> "GeneralName":
    from cryptography import x509  # noqa: PLC0415

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads, in one step."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    temporary.replace(path)
