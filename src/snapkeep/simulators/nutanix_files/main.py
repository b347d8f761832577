"""Puts a simulator together, says on stdout where it listens, and runs it."""

import asyncio
import json
import logging
import sqlite3
import sys
from pathlib import Path

import msgspec

from snapkeep.simulators.kit.certificates import Certificates, certificates
from snapkeep.simulators.kit.datadir import DirectoryInUseError, DirectoryLock
from snapkeep.simulators.kit.server import bind, serve
from snapkeep.simulators.nutanix_files.app import App
from snapkeep.simulators.nutanix_files.content import Configuration, ContentError
from snapkeep.simulators.nutanix_files.control import PREFIX, NutanixControl
from snapkeep.simulators.nutanix_files.options import Options
from snapkeep.simulators.nutanix_files.world import World


class StartError(Exception):
    """The simulator cannot start; the text is for the person who started it."""


def run(options: Options) -> None:
    """Run until SIGTERM or SIGINT. What prevents the start is one line on stderr and exit status 2."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_run(options))
    except StartError as error:
        sys.stderr.write(f"cannot start the Nutanix Files simulator: {error}\n")
        raise SystemExit(2) from None


async def _run(options: Options) -> None:
    configuration = _configuration(options.config)
    try:
        lock = DirectoryLock(options.data_dir)
    except (DirectoryInUseError, OSError) as error:
        raise StartError(str(error)) from None
    try:
        bound = bind(options.host, options.port)
    except (OSError, OverflowError) as error:
        raise StartError(f"{options.host} port {options.port}: {error}") from None
    try:
        world = World(options, configuration)
        tls = _certificates(options)
        world.begin()
    except ContentError as error:
        raise StartError(f"{options.config}: {error}") from None
    except (sqlite3.Error, msgspec.DecodeError, OSError) as error:
        raise StartError(f"the data directory {options.data_dir} cannot be read: {error}") from None
    control = NutanixControl(world) if options.control else None
    port = bound.getsockname()[1]
    try:
        await serve(
            App(world, control),
            bound,
            certificate=tls.certificate if tls else None,
            key=tls.key if tls else None,
            on_ready=lambda: _announce(world, tls, port),
        )
    finally:
        await world.end()
        world.store.close()
        lock.release()


def _configuration(path: Path | None) -> Configuration:
    if path is None:
        return Configuration()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Configuration)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror or error}") from None
    except msgspec.DecodeError as error:
        raise StartError(f"{path}: {error}") from None


def _certificates(options: Options) -> Certificates | None:
    if not options.tls:
        return None
    names = ["localhost", "127.0.0.1", "::1", *options.names]
    if options.host not in {"0.0.0.0", "::"}:  # noqa: S104 - it is a comparison
        names.append(options.host)
    return certificates(options.data_dir / "tls", names)


def _announce(world: World, tls: Certificates | None, port: int) -> None:
    host = world.options.host
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - it is a comparison
        host = "127.0.0.1"
    url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    admin = world.accounts.by_name["admin"]
    line = {
        "url": url,
        "ca_file": str(tls.ca.resolve()) if tls else None,
        "fingerprint": tls.fingerprint if tls else None,
        "control": f"{url}{PREFIX}" if world.options.control else None,
        "data_dir": str(world.data_dir),
        "username": admin.name,
        "password": admin.password,
        "api_key": admin.api_key,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
