"""The settings of server and workers, of the command line, and of each plug-in."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterable
from typing import Any

from cyclopts import Parameter

from generators.markdown import page, table
from generators.values import default, kind
from snapkeep.cli.options import Common
from snapkeep.cli.serve import run_worker, serve
from snapkeep.plugin.plugin import Plugin
from snapkeep.plugin.registry import get_plugin, plugin_names
from snapkeep.plugin.settings import SystemSettings
from snapkeep.server.settings import ProcessSettings, ServerSettings, WorkerProcessSettings


def settings_page() -> str:
    """Settings of server and workers, of the command line, and of each plug-in."""
    return page(
        "Settings",
        "## Server and workers",
        "Environment variables of `snapkeep serve` and `snapkeep worker`, some of them also options. An option goes "
        "before the environment variable. Some must be [the same everywhere]"
        "(../how-to/run-workers.md#settings-that-must-be-the-same-everywhere).",
        process_settings(ProcessSettings),
        "## Server only",
        process_settings(ServerSettings, besides=ProcessSettings),
        "## Worker only",
        process_settings(WorkerProcessSettings, besides=ProcessSettings),
        "## Command line",
        table(("Environment variable", "Instead of", "Meaning"), [*client_variables(), token_variable()]),
        *(plugin_settings(get_plugin(name)) for name in plugin_names()),
    )


def process_settings(settings: type[ProcessSettings], *, besides: type[ProcessSettings] | None = None) -> str:
    """Return the table of settings, without those of `besides`."""
    known = besides.model_fields if besides else {}
    return table(
        ("Setting", "Environment variable", "Option", "Default", "Meaning"),
        [
            [f"`{name}`", f"`SNAPKEEP_{name.upper()}`", process_option(name), plain_default(name, field.default), text]
            for name, field in settings.model_fields.items()
            if name not in known and (text := field.description or "")
        ],
    )


def process_option(name: str) -> str:
    """Return the option of a setting; said which of the two commands has it when only one does."""
    having = [command for command in (serve, run_worker) if name in inspect.signature(command).parameters]
    option = f"`--{name.replace('_', '-')}`"
    if name in {"work", "tls"}:
        option = f"`--{name}`, `--no-{name}`"
    shared = name in ProcessSettings.model_fields
    return "-" if not having else f"{option} (worker)" if shared and serve not in having else option


def plain_default(name: str, value: Any) -> str:
    """Return a default as one would write it into the environment."""
    if name == "data_dir":
        return "`$XDG_DATA_HOME/snapkeep`, usually `~/.local/share/snapkeep`"
    if value in (None, "", ()):
        return ""
    return f"`{','.join(value) if isinstance(value, tuple) else str(value).lower() if value is True else value}`"


def client_variables() -> list[list[str]]:
    """Return the environment variables of the common options."""
    hints = typing.get_type_hints(Common, include_extras=True)
    texts = dict(re.findall(r"^    (\w+): Annotated.*\n    \"\"\"(.*)\"\"\"", inspect.getsource(Common), re.MULTILINE))
    rows = []
    for name, hint in hints.items():
        for option in typing.get_args(hint)[1:]:
            if isinstance(option, Parameter) and option.env_var:
                options = ", ".join(f"`{each}`" for each in option.name or ())
                rows.append([*(f"`{variable}`" for variable in option.env_var), options, texts[name]])
    return rows


def token_variable() -> list[str]:
    """Return the row of the one variable that has no option: a token must not stand on a command line."""
    return ["`SNAPKEEP_TOKEN`", "-", "The token itself; goes before `--token-file`."]


def plugin_settings(plugin: Plugin) -> str:
    """Return the settings of one plug-in."""
    return "\n\n".join(
        [
            f"## Plug-in {plugin.name}",
            f"Settings of a system of {plugin.title}: `snapkeep system add NAME --plugin {plugin.name} "
            "--set SETTING=VALUE`. Secrets are given with `--ask`, `--secret-file` or `--secret-env` and stored "
            "encrypted.",
            table(
                ("Setting", "Type", "Default", "Needed", "Secret", "Meaning"),
                settings_rows(plugin.settings),
            ),
        ]
    )


def settings_rows(settings: type[SystemSettings]) -> Iterable[list[str]]:
    """Yield a row for each setting."""
    schema = settings.model_json_schema()
    for name, field in settings.model_fields.items():
        item = schema["properties"][name]
        words = next((each["enum"] for each in (item, *item.get("anyOf", ())) if "enum" in each), None)
        yield [
            f"`{name}`",
            " or ".join(f"`{word}`" for word in words) if words else kind(item).removesuffix(" or null"),
            "" if field.is_required() else default(item),
            "yes" if field.is_required() else "",
            "yes" if name in settings.secret_fields() else "",
            field.description or "",
        ]
