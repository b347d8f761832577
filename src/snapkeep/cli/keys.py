"""`snapkeep key`: the keys of the stored secrets."""

from __future__ import annotations

from cyclopts import App

from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import part

app = App(name="key", help="List, rotate and retire the keys of the stored secrets.")


@app.command(name="list")
def list_keys(*, common: Common = DEFAULT) -> None:
    """List the keys: which one seals, which ones are still needed, and which workers lack one."""
    from snapkeep.cli import output

    rows = common.connect().request("GET", "/keys")["data"]
    columns = [("id", "KEY"), ("state", "STATE"), ("records", "RECORDS"), ("lacking", "WORKERS WITHOUT IT")]
    output.show(common, rows, columns, empty="There is no key.")


@app.command
def rotate(*, common: Common = DEFAULT) -> None:
    """Let a new key follow the one that seals, and seal all secrets anew.

    Where workers have files of their own, it is made first and waits until all of them have it: copy the file, and run
    this again. The old key stays, and opens what was sealed with it, until it is retired.
    """
    from snapkeep.cli import output

    rest = common.connect()
    with output.busy(common, "Rotating the secret key"):
        done = rest.request("POST", "/keys/rotate")
    if common.json:
        output.print_json(done)
        return
    output.console.print(f"The secret key {done['key']} seals now; {done['records']} records were sealed anew.")
    output.console.print("Keep a copy of the key file. Next: snapkeep key list")


@app.command
def retire(key: str, /, *, common: Common = DEFAULT) -> None:
    """Take a key out of the server's file that no record needs any more.

    Backups of the catalog from before can only be opened with it: keep a copy as long as those.

    Parameters
    ----------
    key
        The key, as `snapkeep key list` calls it.
    """
    from snapkeep.cli import output

    common.connect().request("DELETE", f"/keys/{part(key)}")
    if common.json:
        output.print_json({"retired": key})
    else:
        output.console.print(f"Retired the secret key {key}.", markup=False)
