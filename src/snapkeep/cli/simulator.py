"""`snapkeep simulator`: stand-alone stand-ins for systems, to try Snapkeep and to rehearse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

app = App(name="simulator", help="Run a simulated system with real files, to try Snapkeep and to rehearse.")


@app.command(name="nutanix-files")
def nutanix_files(
    *,
    data_dir: Path,
    host: str = "127.0.0.1",
    port: int = 9440,
    tls: Annotated[bool, Parameter(name="--tls", negative="--http")] = True,
    partner_server: str | None = None,
    config: Path | None = None,
    control: Annotated[bool, Parameter(name="--control", negative="--no-control")] = True,
) -> None:
    """Run a simulated Nutanix Files (Prism Central with file servers, shares and real files).

    Prints one line of JSON when it is ready: address, CA file and accounts.

    Parameters
    ----------
    data_dir
        Where shares, snapshots and state are kept; taken up again when it exists.
    host
        Address to listen on.
    port
        TCP port; 0 takes a free one.
    tls
        HTTPS with a certificate authority of its own, or HTTP (loopback only).
    partner_server
        Name of a partner server of type BACKUP to register on every file server, as exports need one.
    config
        JSON file with file servers, accounts, settings and faults.
    control
        Serve the control API of the simulator at /simulator/v1.
    """
    from snapkeep.simulators.nutanix_files import Options, run

    options = Options(
        data_dir=data_dir,
        host=host,
        port=port,
        tls=tls,
        partner_server=partner_server,
        config=config,
        control=control,
    )
    run(options)
