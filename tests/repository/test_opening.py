"""Backends are opened by their URLs."""

from __future__ import annotations

import sys
from contextlib import closing

import pytest
from tests.repository.backends import all_of

from snapkeep.model.errors import InvalidInput
from snapkeep.repository.backends import Backend
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.backends.opening import open_backend
from snapkeep.repository.backends.s3 import S3Backend
from snapkeep.repository.backends.sftp import SftpBackend


@pytest.mark.parametrize(
    ("url", "kind", "location"),
    [
        ("/srv/backup", LocalBackend, "/srv/backup"),
        ("/srv/a:b", LocalBackend, "/srv/a:b"),
        ("file:///srv/with%20space", LocalBackend, "/srv/with space"),
        ("local:/srv/backup", LocalBackend, "/srv/backup"),
        ("s3:https://host:9000/bucket/a/b/", S3Backend, "s3:https://host:9000/bucket/a/b"),
        ("s3:http://host/bucket", S3Backend, "s3:http://host/bucket"),
        ("s3:s3.eu-west-1.amazonaws.com/bucket", S3Backend, "s3:https://s3.eu-west-1.amazonaws.com/bucket"),
        ("sftp:ann@host:/srv/backup", SftpBackend, "sftp:ann@host:/srv/backup"),
        ("sftp:host:backup", SftpBackend, "sftp:host:backup"),
        ("sftp://ann@host:2222//srv/backup", SftpBackend, "sftp://ann@host:2222//srv/backup"),
        ("sftp://ann@[::1]:2222/backup", SftpBackend, "sftp://ann@::1:2222/backup"),
    ],
)
def test_spellings(url: str, kind: type[Backend], location: str) -> None:
    secrets = {"access_key": "a", "secret_key": "b"} if url.startswith("s3") else {}
    with closing(open_backend(url, secrets)) as backend:
        assert type(backend) is kind
        assert backend.location == location


@pytest.mark.parametrize(
    "url",
    ["", "relative", "ftp://host/x", "local:relative", "s3:https://host", "s3:", "s3:ftp://host/b", "sftp:host",
     "sftp://host", "sftp:host:", "sftp://host:port//x", "sftp://ann:word@host//x", "s3:https://a:word@host/b"],
)  # fmt: skip
def test_wrong_urls(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_backend(url, {"access_key": "a", "secret_key": "b"} if url.startswith("s3") else {})
    assert "word@" not in all_of(caught.value)


def test_wrong_secrets() -> None:
    for url, secrets in (
        ("/srv", {"password": "x"}), ("s3:https://host/b", {}), ("s3:https://host/b", {"access_key": "x"}),
        ("sftp:host:/x", {"attempts": "5"}), ("sftp:host:/x", {"host_key": "secret-text"}),
        ("sftp:host:/x", {"private_key": "secret-text"}), ("sftp:host:/x", {"known_hosts": "/not/there"}),
    ):  # fmt: skip
        with pytest.raises(InvalidInput) as caught:
            open_backend(url, secrets)
        assert "secret-text" not in all_of(caught.value)


@pytest.mark.parametrize(
    ("url", "extra", "library", "module"),
    [("s3:https://host/b", "s3", "boto3", "backends.s3"), ("sftp:host:/x", "ssh", "asyncssh", "backends.sftp")],
)
def test_a_missing_extra_is_named(
    url: str, extra: str, library: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"snapkeep.repository.{module}")
    monkeypatch.delitem(sys.modules, "snapkeep.ssh", raising=False)
    with pytest.raises(InvalidInput) as caught:
        open_backend(url, {"access_key": "a", "secret_key": "b"} if extra == "s3" else {})
    assert f"snapkeep[{extra}]" in caught.value.next_step
