"""`snapkeep asset`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from snapkeep.cli.options import DEFAULT, Common, Several
from snapkeep.cli.references import parse_asset, part

app = App(name="asset", help="List, show and label what can be protected.")


@app.command(name="list")
def list_assets(
    system: str | None = None,
    /,
    *,
    gone: Annotated[bool, Parameter(negative="")] = False,
    label: Several = (),
    common: Common = DEFAULT,
) -> None:
    """List assets.

    Parameters
    ----------
    system
        Only those of this system.
    gone
        Also those that no longer exist.
    label
        Only those with this label, KEY=VALUE, of their own or of their system; repeat it for those with all of several.
    """
    from snapkeep.cli import labels, output

    wanted = ["=".join(labels.parse(text)) for text in label]
    rest = common.connect()
    columns = [
        ("reference", "ASSET"),
        ("kind", "KIND"),
        ("parent", "IN"),
        ("snapshots", "SNAPSHOTS"),
        ("labels", "LABELS"),
        ("capabilities", "CAN"),
    ]
    rows = list(rest.pages("/assets", system=system, gone=gone, label=wanted or None))
    if system and not rows:
        rest.request("GET", f"/systems/{part(system)}")  # says so when that is the name that is wrong
    rows = rows if common.json else [labels.shown(row) for row in rows]
    nothing = "Nothing has these labels." if label else "Nothing was discovered yet: run `snapkeep discover SYSTEM`."
    output.show(common, rows, columns, empty=nothing)


@app.command
def show(asset: str, /, *, common: Common = DEFAULT) -> None:
    """Show an asset: what it can do, and why not.

    Parameters
    ----------
    asset
        The asset as system/asset.
    """
    from snapkeep.cli import labels, output

    found = common.connect().asset(parse_asset(asset))
    output.show_one(common, found if common.json else labels.shown(found))


@app.command
def label(
    asset: str,
    /,
    *labels: str,
    remove: Several = (),
    common: Common = DEFAULT,
) -> None:
    """Give an asset labels, or take them away. Roles can be granted for all that has a label.

    Parameters
    ----------
    asset
        The asset as system/asset.
    labels
        KEY=VALUE; one that has the key already gets the new value.
    remove
        KEY of a label to take away; repeat it.
    """
    from snapkeep.cli.labels import change

    rest = common.connect()
    change(common, rest, asset, f"/assets/{rest.asset(parse_asset(asset))['id']}", labels, remove)
