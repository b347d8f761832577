"""How the command line knows its server, before it sends the token."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from snapkeep.model.errors import InvalidInput


def trust_here(address: Mapping[str, object]) -> ssl.SSLContext | None:
    """Return the trust for what a running server has noted in its data directory; None: it is plain HTTP."""
    if "ca_file" in address:
        return _context(cafile=str(address["ca_file"]))
    if "certificate" not in address:
        return None
    context = _context(cadata=str(address["certificate"]))
    context.check_hostname = False  # it is this very certificate, whatever names it has
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def trust_there(url: str, ca_file: Path | None, fingerprint: str | None) -> ssl.SSLContext | None:
    """Return the trust for a server that a person names. Raises InvalidInput, and what reading a fingerprint raises."""
    parts = _parts(url)
    if parts.scheme == "http":
        return None
    if fingerprint is None:
        try:
            return _context(cafile=str(ca_file) if ca_file else None)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"The CA file {str(ca_file)!r} cannot be used: {error}") from error
    import asyncio

    from snapkeep.plugin.settings import HttpsSettings
    from snapkeep.plugin.tls import trust

    given = {"host": parts.hostname, "port": parts.port or 443, "fingerprint": fingerprint}
    return asyncio.run(trust(HttpsSettings.parse(given | ({"ca_file": str(ca_file.absolute())} if ca_file else {}))))


def present(trust: ssl.SSLContext | None, certificate: Path | None, key: Path | None) -> None:
    """Let a client show its own certificate. Raises InvalidInput for one that cannot be used."""
    if certificate is None and key is None:
        return
    if certificate is None or trust is None:
        raise InvalidInput(
            "A key without its certificate is of no use" if trust else "Over plain HTTP no certificate is shown",
            next_step="Give --client-cert, and an address that begins with https://.",
        )
    try:
        trust.load_cert_chain(certificate, key, password=lambda: "")  # a prompt would wait for ever in a job
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"The client certificate {str(certificate)!r} cannot be used: {error}",
            next_step="Give --client-cert and --client-key as PEM files, the key not encrypted.",
        ) from error


def refused_us(error: BaseException | None) -> str | None:
    """Return why a server did not take our certificate, or did not want to go on without one."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and (found := re.search(r"\balert ([a-z ]+)", str(error))):
            return found[1].strip()
        error = error.__cause__ or error.__context__
    return None


def require_private(url: str, trust: ssl.SSLContext | None) -> None:
    """Raise InvalidInput where others could read the token on its way."""
    parts = _parts(url)
    if parts.scheme == "https" and trust is not None:
        return
    if parts.scheme != "http" or not _is_loopback(parts.hostname or ""):
        raise InvalidInput(
            f"The token is not sent to {url} by plain HTTP: others could read it",
            next_step="Give an address that begins with https://.",
        )


def refused_certificate(error: BaseException | None) -> str | None:
    """Return why a certificate was not trusted, if that is what ended a connection."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None


def _parts(url: str) -> SplitResult:
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0:
            return parts
    raise InvalidInput(f"{url!r} is no address of a server", next_step="Give one such as https://host:8420.")


def _context(cafile: str | None = None, cadata: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=cafile, cadata=cadata)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
