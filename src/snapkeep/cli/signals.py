"""`snapkeep signal`: what was thought of change lists; say that suspicious changes are harmless."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import parse_asset, part

app = App(name="signal", help="Show what was thought of change lists; say that suspicious changes are harmless.")

Json = dict[str, Any]
Flag = Annotated[bool, Parameter(negative="")]


@app.command(name="list")
def list_signals(
    asset: str | None = None, /, *, suspicious: Flag = False, waiting: Flag = False, common: Common = DEFAULT
) -> None:
    """List what was thought of change lists, the newest first.

    Parameters
    ----------
    asset
        Only those of this system/asset.
    suspicious
        Only suspicious ones.
    waiting
        Only suspicious ones that nobody has acknowledged.
    """
    from snapkeep.cli import output

    rest = common.connect()
    params: Json = {"asset_id": rest.asset(parse_asset(asset))["id"] if asset else None}
    params |= {"suspicious": True if suspicious or waiting else None, "acknowledged": False if waiting else None}
    rows = list(rest.pages("/signals", **params))
    if not common.json:
        rows = [{**row, "id": row["operation_id"][:8], "why": "; ".join(row["reasons"])} for row in rows]
    columns = [
        ("id", "ID"),
        ("asset", "ASSET"),
        ("at", "STATE OF"),
        ("repository", "REPOSITORY"),
        ("suspicious", "SUSPICIOUS"),
        ("acknowledged_by", "ACKNOWLEDGED BY"),
        ("why", "WHY"),
    ]
    if not common.json:
        rows = [{**row, "at": output.local_time(row["at"])} for row in rows]
    output.show(common, rows, columns, empty="There are no signals: they come with incremental backups and diffs.")


@app.command
def show(signal: str, /, *, common: Common = DEFAULT) -> None:
    """Show what was measured on a change list, beside what is usual.

    Parameters
    ----------
    signal
        The id of the backup or diff, or the beginning of it.
    """
    from snapkeep.cli import output

    found = common.connect().request("GET", f"/signals/{part(signal)}")
    if common.json:
        output.print_json(found)
        return
    shown = {name: value for name, value in found.items() if name not in {"scores", "features"}}
    output.show_one(common, {**shown, "at": output.local_time(found["at"])}, hide=("asset_id",))
    rows = [
        {
            "measure": name,
            "value": _figure(name, score["value"]),
            "usual": " to ".join(_figure(name, bound) for bound in score["usual"]),
            "z": f"{score['z']:.1f}",
            "drift": "-" if score["drift"] is None else f"{score['drift']:.1f}",
        }
        for name, score in found["scores"].items()
    ]
    columns = [("measure", "MEASURE"), ("value", "VALUE"), ("usual", "USUALLY"), ("z", "Z"), ("drift", "DRIFT")]
    output.show(common, rows, columns, empty=f"Nothing is said after so few lists: {found['lists']}.")


@app.command
def acknowledge(signal: str, /, *, reason: str, common: Common = DEFAULT) -> None:
    """Say that suspicious changes are harmless: they are usual from now on. What is held stays held.

    Parameters
    ----------
    signal
        The id of the backup or diff, or the beginning of it.
    reason
        Why, for those who come after.
    """
    from snapkeep.cli import output

    rest = common.connect()
    found = rest.request("POST", f"/signals/{part(signal)}/acknowledge", json={"reason": reason})
    if common.json:
        output.print_json(found)
        return
    held = f" Still held: {found['held']}; `snapkeep hold release` lets go of it." if found["held"] else ""
    sentence = f"Acknowledged the changes of {found['asset']}: they are usual from now on.{held}"
    output.console.print(output.printable(sentence), markup=False, soft_wrap=True)


def tell_signal(result: Json) -> None:
    """Say in one line that what an operation has found to be changed is suspicious."""
    from snapkeep.cli import output

    signal = result.get("signal")
    if signal and signal["suspicious"]:
        held = f"; held: {signal['held']}" if signal["held"] else ""
        text = f"  SUSPICIOUS: {'; '.join(signal['reasons'])}{held}"
        output.console.print(output.printable(text), style="bold red", markup=False, soft_wrap=True)


def _figure(name: str, value: float) -> str:
    from snapkeep.cli import output

    if name.endswith("bytes"):
        return output.size(int(value))
    return f"{value:.1f}" if name == "entropy" else f"{value:,.0f}"
