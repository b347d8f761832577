"""A real S3 over HTTP for tests: moto as a server in a process of its own, with users, keys and rights."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import boto3

_FULL = ["s3:*"]
_READ = ["s3:Get*", "s3:List*"]


class S3Server:
    """Listens on a free port of loopback; what it holds is gone with it. It knows two keys: `owner` and `reader`."""

    def __init__(self, directory: Path, *, certificate: Path | None = None, key: Path | None = None) -> None:
        self._log = directory / "s3.log"
        self._scheme = "https" if certificate else "http"
        tls = ["-c", str(certificate), "-k", str(key)] if certificate else []
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0", *tls],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )
        self._verify = str(certificate) if certificate else None
        try:
            self.port = self._wait_for_port()
            self.endpoint = f"{self._scheme}://127.0.0.1:{self.port}"
            self.owner = self._make_user("owner", _FULL)
            self.reader = self._make_user("reader", _READ)
            self._demand_signatures()
        except BaseException:
            self.kill()
            raise

    def make_bucket(self, name: str) -> None:
        keys = {"aws_access_key_id": self.owner["access_key"], "aws_secret_access_key": self.owner["secret_key"]}
        client = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", verify=self._verify, **keys)
        client.create_bucket(Bucket=name)
        client.close()

    def kill(self) -> None:
        self._child.kill()
        self._child.wait(30)

    def _wait_for_port(self) -> int:
        end = time.monotonic() + 60
        while time.monotonic() < end and self._child.poll() is None:
            if found := re.search(rb"Running on https?://127\.0\.0\.1:(\d+)", self._log.read_bytes()):
                return int(found[1])
            time.sleep(0.05)
        raise AssertionError(f"the S3 server does not start:\n{self._log.read_text()}")

    def _make_user(self, name: str, actions: list[str]) -> dict[str, Any]:
        made: Any = boto3.client(
            "iam", endpoint_url=self.endpoint, region_name="us-east-1", verify=self._verify,
            aws_access_key_id="x", aws_secret_access_key="x",
        )  # fmt: skip
        made.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        made.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=policy)
        key = made.create_access_key(UserName=name)["AccessKey"]
        made.close()
        return {"access_key": key["AccessKeyId"], "secret_key": key["SecretAccessKey"]}

    def _demand_signatures(self) -> None:
        if self._scheme == "http":
            request = urllib.request.Request(
                f"{self.endpoint}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
            )
            urllib.request.urlopen(request, timeout=30).close()
