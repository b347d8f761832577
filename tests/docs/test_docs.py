"""The documentation is whole and true: generated pages are up to date, everything is named, links lead somewhere."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from snapkeep.cli.main import app as cli
from snapkeep.model.assets import Capability
from snapkeep.model.errors import ERRORS
from snapkeep.operations.run import Limits
from snapkeep.plugin.registry import get_plugin, plugin_names
from snapkeep.plugin.settings import HttpsSettings
from snapkeep.plugins.nutanix_files import PLUGIN, assumptions
from snapkeep.server.app import create_app
from snapkeep.server.settings import ServerSettings, WorkerProcessSettings
from snapkeep.simulators.kit import faults
from snapkeep.simulators.kit.control import Control
from snapkeep.simulators.nutanix_files.content import NewFileServer, NewPartnerServer
from snapkeep.simulators.nutanix_files.control import NutanixControl
from snapkeep.simulators.nutanix_files.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "snapkeep"
OUTSIDE = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((SOURCE / "plugins").glob("*/README.md")))


def page(name: str) -> str:
    return (DOCS / name).read_text()


# -- generated pages ---------------------------------------------------------------------------------------------------
def test_the_reference_is_up_to_date() -> None:
    ran = subprocess.run(
        [sys.executable, DOCS / "generate.py", "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, f"run docs/generate.py\n{ran.stdout}{ran.stderr}"


def subcommands(app: App, *names: str) -> Iterator[tuple[tuple[str, ...], App]]:
    """Yield every command below `app` with its names."""
    for name in app:
        if name.startswith("-"):
            continue
        command = app[name]
        yield (*names, name), command
        yield from subcommands(command, *names, name)


COMMANDS = dict(subcommands(cli))


def test_every_command_is_found() -> None:
    assert ("snapshot", "diff") in COMMANDS
    assert len(COMMANDS) > 25


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_and_option_is_in_the_reference(names: tuple[str, ...]) -> None:
    text = page("reference/cli.md")
    heading = f" snapkeep {' '.join(names)}\n"
    assert f"#{heading}" in text
    section = text[text.index(f"#{heading}") :]
    section = section[: section.find("\n#")]
    section += text[text.index("## Common options") : text.index("## snapkeep system")]
    command = COMMANDS[names]
    if command.default_command is None:
        return
    for argument in command.assemble_argument_collection(parse_docstring=True):
        for option in argument.names:
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", section), option


def routes() -> list[tuple[str, str]]:
    def never() -> typing.Any:
        raise AssertionError("nothing is opened")

    paths = create_app("0" * 43, never).openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


@pytest.mark.parametrize(("method", "path"), routes())
def test_every_route_is_in_the_reference(method: str, path: str) -> None:
    assert f"### `{method} {path}`\n" in page("reference/rest.md")


def test_errors_of_every_route_are_problems() -> None:
    text = page("reference/rest.md")
    assert "\n### Problem\n" in text
    assert "HTTPValidationError" not in text
    assert "| Field | Type | Default | Meaning |" in text[text.index("\n### SystemChange\n") :].partition("\n### ")[2]


def test_every_server_setting_is_in_the_reference() -> None:
    text = page("reference/settings.md")
    for settings in (ServerSettings, WorkerProcessSettings):
        for name, field in settings.model_fields.items():
            assert f"| `{name}` | `SNAPKEEP_{name.upper()}` |" in text
            assert field.description
            assert field.description in text


@pytest.mark.parametrize("name", plugin_names())
def test_every_plugin_is_in_the_reference(name: str) -> None:
    plugin, settings, matrix = get_plugin(name), page("reference/settings.md"), page("reference/plugins.md")
    section = settings[settings.index(f"## Plug-in {name}\n") :]
    for field in plugin.settings.model_fields:
        assert f"| `{field}` |" in section
    assert f"| `{name}` | {plugin.title} | `{plugin.proof}` |" in matrix
    for rights in plugin.permissions.values():
        assert all(f"`{right}`" in matrix for right in rights)
    assert all(f"| `{capability}` |" in matrix for capability in Capability)


@pytest.mark.parametrize("code", ERRORS)
def test_every_error_is_in_the_reference(code: str) -> None:
    error, text = ERRORS[code], page("reference/errors.md")
    retried = "yes" if error.retryable else "no"
    assert f"`{code}` | {error.http_status} | {error.exit_code} | {retried} |" in text
    assert re.search(rf"^\| {error.exit_code} \|", text, re.MULTILINE)


def test_every_exit_code_is_told() -> None:
    for code in (0, 1, 2, 17, 130):
        assert re.search(rf"^\| {code} \|", page("reference/errors.md"), re.MULTILINE)


# -- pages by hand that follow the code --------------------------------------------------------------------------------
def test_the_guide_has_the_rights_of_the_plugin() -> None:
    text = page("how-to/prepare-nutanix-files.md")
    for capability, rights in PLUGIN.permissions.items():
        listed = ", ".join(f"`{right}`" for right in rights)
        assert f"| {capability} | {listed} |" in text


def test_the_times_of_operations_are_those_of_the_settings() -> None:
    text = page("explanation/operations.md")
    for name in ("outage_seconds", "stall_seconds", "operation_seconds", "call_seconds", "takeover_seconds"):
        assert f"| {ServerSettings.model_fields[name].default:,} s | `SNAPKEEP_{name.upper()}` |" in text, name
    assert f"| {HttpsSettings.model_fields['retry_seconds'].default:g} s | `retry_seconds` of the system |" in text
    assert f"| {Limits().undo:g} s | - |" in text


def assumption_names() -> list[str]:
    """The public names that the module of assumptions itself defines."""
    source = inspect.getsource(assumptions)
    found = re.findall(r"^(?:def )?([A-Za-z][A-Za-z_]*)(?:\(|: .* = | = )", source, re.MULTILINE)
    return sorted({name for name in found if name in vars(assumptions)})


def test_every_assumption_is_explained() -> None:
    text = page("explanation/assumptions-nutanix-files.md")
    assert len(assumption_names()) >= 10
    for name in assumption_names():
        assert f"`{name}`" in text, name


def test_every_assumed_setting_of_the_simulator_is_explained() -> None:
    text = page("explanation/assumptions-nutanix-files.md")
    for name in Settings.__struct_fields__:
        assert f"`{name}`" in text, name


def test_the_assumptions_page_names_only_what_exists() -> None:
    text = page("explanation/assumptions-nutanix-files.md")
    table = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(table) > 12
    for line in table:
        first, _, setting = (cell.strip() for cell in line.strip("| ").split(" | "))
        file = re.search(r" in `([\w/]+\.py)`$", first)
        path = SOURCE / "plugins/nutanix_files" / (file[1] if file else "assumptions.py")
        if file and "/" in file[1]:
            path = ROOT / "src" / file[1]
        if not file or "," not in first:
            for name in re.findall(r"`(\w+)`", first):
                assert re.search(rf"\b{name}\b", path.read_text()), f"{name} in {path}"
        if not setting.startswith("-"):
            assert all(name in Settings.__struct_fields__ for name in re.findall(r"`(\w+)`", setting)), setting


def test_the_simulators_page_names_everything() -> None:
    text = page("how-to/run-the-simulator.md")
    for name in Settings.__struct_fields__:
        assert f"`{name}`" in text, name
    for action in typing.get_args(faults.Action):
        assert f"| `{action}` |" in text, action
    arguments = COMMANDS["simulator", "nutanix-files"].assemble_argument_collection(parse_docstring=True)
    for option in {name for argument in arguments for name in argument.names if name.startswith("--")}:
        assert re.search(rf"`{option}[ `]", text), option
    for struct in (NewFileServer, NewPartnerServer):
        for name in set(struct.__struct_fields__) - {"fqdn"}:
            assert f"`{name}`" in text, name
    assert 'share = "' in inspect.getsource(NutanixControl.__init__)
    for cls in (Control, NutanixControl):
        source = inspect.getsource(cls.__init__).replace('share + "', '"/file-servers/{server}/shares/{share}')
        for method, path in re.findall(r'\("([A-Z]+)", "([^"]+)"', source):
            assert f"`{method} {path}`" in text, f"{method} {path}"


# -- whole -------------------------------------------------------------------------------------------------------------
def test_the_site_builds(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    html = (tmp_path / "site" / "tutorial" / "index.html").read_text()
    assert not re.search(r'(src|href)="(https?:)?//[^"]+\.(js|css|woff2?)"', html), "an asset from outside"
    example = (tmp_path / "site" / "how-to" / "write-a-plugin" / "index.html").read_text()
    assert "FolderSettings" in example


def test_every_page_and_decision_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for path in DOCS.rglob("*.md"):
        assert f": {path.relative_to(DOCS).as_posix()}\n" in navigation, path
    decisions = sorted(path.name for path in (DOCS / "adr").glob("*.md"))
    assert [int(name[:4]) for name in decisions] == list(range(1, len(decisions) + 1))


def test_the_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    for command in ("demo", "test"):
        assert f"\nmake {command}\n" in text
    for file in ("README.md", "CONTRIBUTING.md"):
        for command in re.findall(r"`make ([a-z]+)|^make ([a-z]+)", (ROOT / file).read_text(), re.MULTILINE):
            assert re.search(rf"^{''.join(command)}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
    for name in plugin_names():
        assert f"`{name}`" in text


@pytest.mark.parametrize("path", [*OUTSIDE, *sorted(DOCS.rglob("*.md"))], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text()), target


def anchors(text: str) -> set[str]:
    """Return the anchors of a page as the site and the forges make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    made = {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)"', text))
