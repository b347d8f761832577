"""A repository in a bucket of S3, or of anything that speaks its protocol, in restic's default layout."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from snapkeep.addresses import require_host_now
from snapkeep.model.errors import (
    AuthenticationFailed,
    Conflict,
    InvalidInput,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    RateLimited,
    SnapkeepError,
    Unavailable,
    VendorError,
)
from snapkeep.repository.backends import NAME, FileKind

try:
    import boto3
    import botocore.exceptions as failures
    from botocore.config import Config
except ImportError as missing:
    raise InvalidInput(
        "Repositories in S3 need a library that is not installed", next_step="Install snapkeep[s3]."
    ) from missing

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

_UNPROVED = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired",
    "InvalidClientTokenId", "AuthFailure", "AuthorizationHeaderMalformed", "RequestTimeTooSkewed", "401",
}  # fmt: skip
_FULL = {"QuotaExceeded", "EntityTooLarge", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "507"}
_SLOWER = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "429"}
_AMAZON = ".amazonaws.com"


class S3Backend:
    """A bucket, or a part of one. A put object appears whole or not at all, and is durable when the answer comes.

    boto3 tries again, with back-off, what failed on the way: `attempts` in all.
    """

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        prefix: str,
        *,
        access_key: str,
        secret_key: str,
        session_token: str | None = None,
        region: str | None = None,
        ca_file: str | None = None,
        attempts: int = 5,
        timeout: float = 60,
    ) -> None:
        host = endpoint.partition("://")[2]
        amazon = host.endswith(_AMAZON)
        self.location = f"s3:{endpoint}/{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._secrets = [text for text in (secret_key, session_token, access_key) if text]
        self._attempts = attempts
        try:
            self._client: S3Client = _new_session().client(
                "s3",
                endpoint_url=None if amazon else endpoint,
                region_name=region or _region(host),
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                aws_session_token=session_token,
                verify=ca_file,
                config=Config(
                    retries={"mode": "standard", "total_max_attempts": attempts},
                    connect_timeout=min(timeout, 15),
                    read_timeout=timeout,
                    max_pool_connections=16,
                    signature_version="s3v4",
                    s3={"addressing_style": "auto" if amazon else "path"},
                    ignore_configured_endpoint_urls=True,  # type: ignore[call-arg]  # the stubs lack it
                    # Many servers that are not Amazon's refuse the newer checksums; Content-MD5 is known to all.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        except (failures.BotoCoreError, ValueError) as error:
            raise InvalidInput(f"The repository {self.location} cannot be used: {self._clean(error)}") from None
        self._client.meta.events.register("before-send.s3", _require_allowed)

    def create(self) -> None:
        """Refuse where a repository is; there is nothing to make, as S3 has no directories."""
        try:
            self.load(FileKind.CONFIG, "")
        except NotFound as error:
            if error.details.get("bucket"):
                raise
            return
        raise Conflict(f"There is a repository in {self.location} already")

    def save(self, kind: FileKind, name: str, data: bytes | bytearray) -> None:
        """Store a file, whole or not at all."""
        digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        self._call(
            f"{kind} {name}",
            lambda: self._client.put_object(
                Bucket=self._bucket, Key=self._key(kind, name), Body=bytes(data), ContentMD5=digest
            ),
        )

    def load(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return a file, or the part of it that is there."""
        key, what = self._key(kind, name), f"{kind} {name}"
        if length == 0:
            self._call(what, lambda: self._client.head_object(Bucket=self._bucket, Key=key))
            return b""
        # A name is never given to other content, so parts of two answers belong together.
        part = f"bytes={offset}-{'' if length is None else offset + length - 1}"

        def get() -> bytes:
            answer = (
                self._client.get_object(Bucket=self._bucket, Key=key)
                if offset == 0 and length is None
                else self._client.get_object(Bucket=self._bucket, Key=key, Range=part)
            )
            with closing(answer["Body"]) as body:
                return body.read()

        try:
            return self._call(what, get, again=True)
        except _PastTheEnd:
            return b""

    def list(self, kind: FileKind) -> Iterator[tuple[str, int]]:
        """Yield names and sizes, a page of at most 1,000 at a time."""
        if kind is FileKind.CONFIG:
            try:
                head = self._call(kind, lambda: self._client.head_object(Bucket=self._bucket, Key=self._key(kind, "")))
            except NotFound:
                return
            yield "", head["ContentLength"]
            return
        pages = iter(
            self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=f"{self._prefix}{kind}/")
        )
        while page := self._call(kind, lambda: next(pages, None)):
            for entry in page.get("Contents", ()):
                name = entry["Key"].rpartition("/")[2]
                if NAME.fullmatch(name):
                    yield name, entry["Size"]

    def remove(self, kind: FileKind, name: str) -> None:
        """Remove a file; one that is not there is success."""
        self._call(f"{kind} {name}", lambda: self._client.delete_object(Bucket=self._bucket, Key=self._key(kind, name)))

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _key(self, kind: FileKind, name: str) -> str:
        if kind is FileKind.CONFIG:
            return f"{self._prefix}{kind}"
        if kind is FileKind.DATA:
            return f"{self._prefix}{kind}/{name[:2]}/{name}"
        return f"{self._prefix}{kind}/{name}"

    def _call(self, what: str, call: Callable[[], T], *, again: bool = False) -> T:
        """Call boto3, which tries again by itself; with `again` also when an answer breaks off half way."""
        for attempt in range(1, self._attempts + 1):
            try:
                return call()
            except failures.ClientError as error:
                raise self._refused(what, error) from None  # its attributes hold the access key
            except (failures.ResponseStreamingError, failures.IncompleteReadError, failures.ReadTimeoutError) as error:
                if not again or attempt == self._attempts:
                    raise self._broken(what, error) from None
            except (failures.BotoCoreError, failures.HTTPClientError) as error:
                raise self._broken(what, error) from None
            time.sleep(min(2 ** (attempt - 2), 20))
        raise AssertionError

    def _refused(self, what: str, error: failures.ClientError) -> SnapkeepError:
        answer = error.response.get("Error", {})
        status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        code = answer.get("Code") or status
        reason = {"vendor_code": code, "vendor_message": self._clean(answer.get("Message", ""))}
        said = {code, status}
        if code == "InvalidRange":
            return _PastTheEnd(f"{what} ends before the part that was asked for")
        if code == "NoSuchBucket":
            return NotFound(
                f"There is no bucket {self._bucket} at {self.location}", **reason, bucket=self._bucket,
                next_step="Make the bucket, or correct the repository's URL.",
            )  # fmt: skip
        if said & {"NoSuchKey", "404"}:
            return NotFound(f"{what} is not in the repository {self.location}", next_step="Check bucket and prefix.")
        if said & _UNPROVED:
            return AuthenticationFailed(
                f"The repository {self.location} refuses the keys", **reason,
                next_step="Check access_key, secret_key and region, and this machine's clock.",
            )  # fmt: skip
        if said & _FULL:
            return LimitExceeded(f"The repository {self.location} cannot take {what}", **reason)
        if "403" in said:
            return PermissionDenied(
                f"The repository {self.location} refuses {what}", **reason,
                needed="s3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket",
                next_step="Give the access key these rights on the bucket.",
            )  # fmt: skip
        if said & _SLOWER or code == "ServiceUnavailable":
            return RateLimited(f"The repository {self.location} asks to slow down", **reason)
        if status.startswith("5"):
            return Unavailable(f"The repository {self.location} fails at {what}", **reason)
        return VendorError(f"The repository {self.location} refuses {what}", **reason)

    def _broken(self, what: str, error: Exception) -> SnapkeepError:
        text = self._clean(error)
        if isinstance(error, failures.SSLError) and "certificate" in text.lower():
            return AuthenticationFailed(
                f"The certificate of {self.location} is not trusted: {text}",
                next_step="Name the file with the certificate of its authority in ca_file.",
            )
        if isinstance(error, failures.ParamValidationError):
            return InvalidInput(f"The repository {self.location} cannot be used: {text}")
        return Unavailable(f"The repository {self.location} fails at {what}: {text}")

    def _clean(self, text: object) -> str:
        cleaned = str(text)
        for secret in self._secrets:
            cleaned = cleaned.replace(secret, "***")
        return cleaned


class _PastTheEnd(VendorError):
    """Asked for a part behind the end of an object. Never leaves this file."""


def _require_allowed(request: AWSPreparedRequest, **_: object) -> None:
    """Look at the addresses of the host before each request. A connection that is open is used on."""
    parts = urlsplit(request.url)
    require_host_now(parts.hostname or "", parts.port or 443)


_making = threading.Lock()


def _new_session() -> boto3.session.Session:
    with _making:  # unlike clients, sessions are not for many threads
        return boto3.session.Session()


def _region(host: str) -> str:
    """Return the region that Amazon's host name tells; other servers take any."""
    parts = host.removesuffix(_AMAZON).split(".")
    return parts[1] if host.endswith(_AMAZON) and len(parts) > 1 else "us-east-1"
