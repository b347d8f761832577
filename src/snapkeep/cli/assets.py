"""`snapkeep asset`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import parse_asset

app = App(name="asset", help="List and show what can be protected.")


@app.command(name="list")
def list_assets(
    system: str | None = None,
    /,
    *,
    gone: Annotated[bool, Parameter(negative="")] = False,
    common: Common = DEFAULT,
) -> None:
    """List assets.

    Parameters
    ----------
    system
        Only those of this system.
    gone
        Also those that no longer exist.
    """
    from snapkeep.cli import output

    rest = common.connect()
    if system:
        rest.request("GET", f"/systems/{system}")
    columns = [
        ("reference", "ASSET"),
        ("kind", "KIND"),
        ("parent", "IN"),
        ("snapshots", "SNAPSHOTS"),
        ("capabilities", "CAN"),
    ]
    rows = rest.pages("/assets", system=system, gone=gone)
    output.show(common, rows, columns, empty="Nothing was discovered yet: run `snapkeep discover SYSTEM`.")


@app.command
def show(asset: str, /, *, common: Common = DEFAULT) -> None:
    """Show an asset: what it can do, and why not.

    Parameters
    ----------
    asset
        The asset as system/asset.
    """
    from snapkeep.cli import output

    output.show_one(common, common.connect().asset(parse_asset(asset)))
