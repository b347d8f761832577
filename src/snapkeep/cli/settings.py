"""Settings and secrets of systems as people give them on the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snapkeep.cli.passwords import content
from snapkeep.model.errors import InvalidInput

Json = dict[str, Any]
_PEM = "-----BEGIN "
"""How a private key begins, which is many lines (RFC 7468)."""


def plain_settings(plugin: Json, pairs: Iterable[str]) -> Json:
    """Return settings as the plug-in's schema types them. Raises InvalidInput for a secret on the command line."""
    settings: Json = {}
    properties = plugin["settings_schema"]["properties"]
    for pair in pairs:
        name, value = _pair(pair, "--set NAME=VALUE")
        if name in plugin["secret_fields"]:
            raise InvalidInput(
                f"{name} is a secret: on the command line other users of this machine could read it",
                next_step=f"Use --ask {name}, --secret-file {name}=FILE or --secret-env {name}=VARIABLE.",
            )
        settings[name] = _typed(value, properties.get(name, {}))
    return settings


def _typed(value: str, schema: Json) -> Any:
    if schema.get("type") == "object":
        try:
            return json.loads(value)
        except ValueError:
            return value  # the server says what is wrong with it
    if schema.get("type") == "array":
        return [_typed(item, schema.get("items", {})) for item in value.split(",") if item]
    kinds = {schema.get("type"), *(item.get("type") for item in schema.get("anyOf", ()))}
    formats = {schema.get("format"), *(item.get("format") for item in schema.get("anyOf", ()))}
    if "path" in formats:  # seen from here, not from the directory of the server
        return str(Path(value).expanduser().absolute())
    if "boolean" in kinds and value.lower() in {"true", "false", "yes", "no"}:
        return value.lower() in {"true", "yes"}
    for kind, convert in (("integer", int), ("number", float)):
        if kind in kinds:
            try:
                return convert(value)
            except ValueError:
                return value  # the server says what is wrong with it
    return value


def secret_settings(
    plugin: Json,
    files: Iterable[str],
    variables: Iterable[str],
    asked: Iterable[str],
    references: Iterable[str] = (),
) -> Json:
    """Return secrets from files, the environment and the keyboard, and references to others.

    Raises InvalidInput for what is no secret.
    """
    secrets = secret_references(references)
    for pair in files:
        name, path = _pair(pair, "--secret-file NAME=FILE")
        text = content(Path(path))
        secrets[name] = text if text.startswith(_PEM) else text.splitlines()[0]
    for pair in variables:
        name, variable = _pair(pair, "--secret-env NAME=VARIABLE")
        if variable not in os.environ:
            raise InvalidInput(f"The environment has no variable {variable!r}")
        secrets[name] = os.environ[variable]
    for name in asked:
        from getpass import getpass

        secrets[name] = getpass(f"{name}: ")
    unknown = secrets.keys() - set(plugin["secret_fields"])
    if unknown:
        raise InvalidInput(
            f"Not a secret of this plug-in: {', '.join(sorted(unknown))}",
            next_step=f"Its secrets are: {', '.join(plugin['secret_fields'])}.",
        )
    return secrets


def secret_references(pairs: Iterable[str]) -> Json:
    """Return references to secrets as REST takes them."""
    given = (_pair(pair, "--secret-ref NAME=REFERENCE") for pair in pairs)
    return {name: {"reference": reference} for name, reference in given}


def _pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidInput(f"{text!r} has not the form {form}")
    return name, value
