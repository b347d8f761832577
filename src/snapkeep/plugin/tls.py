"""Trust: the certificate authorities of the machine, a CA file, or one pinned certificate. Never nothing."""

from __future__ import annotations

import asyncio
import hashlib
import ssl

from snapkeep import addresses
from snapkeep.model.errors import AuthenticationFailed, InvalidInput, Unavailable
from snapkeep.plugin.settings import HttpsSettings


async def trust(settings: HttpsSettings) -> ssl.SSLContext:
    """Return the context with which to reach the system.

    Raises InvalidInput (CA file unreadable), AuthenticationFailed (another certificate than the pinned one),
    Unavailable (pinned system not reachable).
    """
    if settings.pinned:
        return await _pinned(settings, settings.pinned)
    try:
        context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"The CA file {str(settings.ca_file)!r} cannot be used: {error}",
            next_step="Give the path of a readable PEM file with the certificate authority.",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _pinned(settings: HttpsSettings, pinned: str) -> ssl.SSLContext:
    """Trust exactly the certificate with this fingerprint.

    Its bytes are fetched once without trust and compared; the context then has that certificate as its only
    anchor, so every later handshake is verified by OpenSSL and no secret is sent before it.
    """
    certificate = await _server_certificate(settings)
    found = hashlib.sha256(certificate).hexdigest()
    if found != pinned:
        raise AuthenticationFailed(
            f"The certificate of {settings.host}:{settings.port} has the fingerprint {found}, not the pinned one",
            next_step="Compare it with the system's own certificate; pin the new one only if they are the same.",
            fingerprint=found,
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=certificate)
    return context


async def _server_certificate(settings: HttpsSettings) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only to read the certificate: nothing is sent over this connection
    try:
        async with asyncio.timeout(settings.request_seconds):
            opened = await addresses.connect(settings.host, settings.port, settings.request_seconds)
            _, writer = await asyncio.open_connection(sock=opened, ssl=context, server_hostname=settings.host)
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"{settings.host}:{settings.port} cannot be reached: {str(error) or 'no answer'}") from error
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    if not certificate:
        raise AuthenticationFailed(f"{settings.host}:{settings.port} shows no certificate")
    return bytes(certificate)
