"""`snapkeep serve` and `snapkeep worker`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from snapkeep.cli.options import DEFAULT, Common

DataDirectory = Annotated[Path | None, Parameter(env_var="SNAPKEEP_DATA_DIR")]
DatabaseUrlFile = Annotated[Path | None, Parameter(env_var="SNAPKEEP_DATABASE_URL_FILE")]
SecretKeyFile = Annotated[Path | None, Parameter(env_var="SNAPKEEP_SECRET_KEY_FILE")]
Queues = Annotated[str | None, Parameter(env_var="SNAPKEEP_QUEUES")]
Programs = Annotated[Path | None, Parameter(env_var="SNAPKEEP_PROGRAMS")]
LogFormat = Annotated[Literal["text", "json"] | None, Parameter(env_var="SNAPKEEP_LOG_FORMAT")]

worker_app = App(name="worker", help="Run a worker beside the server; list the workers.")


def serve(
    *,
    data_dir: DataDirectory = None,
    host: Annotated[str | None, Parameter(env_var="SNAPKEEP_HOST")] = None,
    port: Annotated[int | None, Parameter(env_var="SNAPKEEP_PORT")] = None,
    database_url_file: DatabaseUrlFile = None,
    secret_key_file: SecretKeyFile = None,
    name: str | None = None,
    queues: Queues = None,
    programs: Programs = None,
    work: Annotated[bool | None, Parameter(env_var="SNAPKEEP_WORK", negative="--no-work")] = None,
    tls: Annotated[bool | None, Parameter(env_var="SNAPKEEP_TLS", negative="--no-tls")] = None,
    tls_names: Annotated[str | None, Parameter(env_var="SNAPKEEP_TLS_NAMES")] = None,
    tls_certificate_file: Annotated[Path | None, Parameter(env_var="SNAPKEEP_TLS_CERTIFICATE_FILE")] = None,
    tls_key_file: Annotated[Path | None, Parameter(env_var="SNAPKEEP_TLS_KEY_FILE")] = None,
    tls_client_ca_file: Annotated[Path | None, Parameter(env_var="SNAPKEEP_TLS_CLIENT_CA_FILE")] = None,
    log_format: LogFormat = None,
) -> None:
    """Run the server: REST API, operations and upkeep in one process; on SQLite, or on PostgreSQL beside workers.

    More settings are environment variables: SNAPKEEP_DATABASE_URL, SNAPKEEP_OPERATIONS_PER_SYSTEM,
    SNAPKEEP_OPERATION_SECONDS and others; see the reference of settings.

    Parameters
    ----------
    data_dir
        Where catalog, secret key and token are kept; default: ~/.local/share/snapkeep.
    host
        Address to listen on; default: 127.0.0.1.
    port
        TCP port to listen on, 0 for a free one; default: 8420.
    database_url_file
        File whose first line is the URL of a PostgreSQL database; default: SQLite in the data directory.
    secret_key_file
        The secret key; default: secret.key in the data directory.
    name
        Name of the server among the workers; default: serve.
    queues
        Queues whose operations it runs, separated by commas; default: default.
    programs
        Directory of the programs that may be named to run before and after a snapshot; default: none are run.
    work
        Whether it runs operations itself; otherwise workers must.
    tls
        Whether to serve HTTPS; plain HTTP is for loopback only.
    tls_names
        Names and addresses by which other machines reach it, separated by commas; for the server's own certificate.
    tls_certificate_file
        PEM file with your own certificate; default: one that the server makes.
    tls_key_file
        PEM file with the key of that certificate; default: the same file.
    tls_client_ca_file
        PEM file with the authorities of clients: who has no certificate of theirs is not even listened to.
    log_format
        text for people, json for log collectors; default: text.
    """
    from snapkeep.server.main import serve as run
    from snapkeep.server.settings import ServerSettings

    run(
        ServerSettings.read(
            data_dir=data_dir,
            host=host,
            port=port,
            database_url_file=database_url_file,
            secret_key_file=secret_key_file,
            name=name,
            queues=queues,
            programs=programs,
            work=work,
            tls=tls,
            tls_names=tls_names,
            tls_certificate_file=tls_certificate_file,
            tls_key_file=tls_key_file,
            tls_client_ca_file=tls_client_ca_file,
            log_format=log_format,
        )
    )


@worker_app.default
def run_worker(
    *,
    name: Annotated[str | None, Parameter(env_var="SNAPKEEP_NAME")] = None,
    queues: Queues = None,
    programs: Programs = None,
    data_dir: DataDirectory = None,
    database_url_file: DatabaseUrlFile = None,
    secret_key_file: SecretKeyFile = None,
    metrics_port: Annotated[int | None, Parameter(env_var="SNAPKEEP_METRICS_PORT")] = None,
    log_format: LogFormat = None,
) -> None:
    """Run operations beside the server. Needs PostgreSQL, and the server's secret key.

    Parameters
    ----------
    name
        Its name: another one for each worker. Started again under its name, it goes on with what it left.
    queues
        Queues whose operations it runs, separated by commas; default: default.
    programs
        Directory of the programs that may be named to run before and after a snapshot; default: none are run.
    data_dir
        Where the secret key is; default: ~/.local/share/snapkeep.
    database_url_file
        File whose first line is the URL of the server's PostgreSQL database; or set SNAPKEEP_DATABASE_URL.
    secret_key_file
        The server's secret key; default: secret.key in the data directory.
    metrics_port
        Loopback TCP port for metrics; default: none.
    log_format
        text for people, json for log collectors; default: text.
    """
    from snapkeep.model.errors import InvalidInput
    from snapkeep.server.settings import WorkerProcessSettings
    from snapkeep.server.worker import run_worker as run

    if name is None:
        raise InvalidInput("A worker needs a name", next_step="Give it --name, another one for each worker.")
    run(
        WorkerProcessSettings.read(
            name=name,
            queues=queues,
            programs=programs,
            data_dir=data_dir,
            database_url_file=database_url_file,
            secret_key_file=secret_key_file,
            metrics_port=metrics_port,
            log_format=log_format,
        )
    )


@worker_app.command(name="list")
def list_workers(*, common: Common = DEFAULT) -> None:
    """List the workers, the server among them: who is alive, and which queues they serve."""
    from snapkeep.cli import output

    rows = common.connect().request("GET", "/workers")["data"]
    columns = [
        ("name", "NAME"),
        ("state", "STATE"),
        ("queues", "QUEUES"),
        ("host", "HOST"),
        ("pid", "PID"),
        ("heartbeat_age_seconds", "HEARTBEAT (s)"),
        ("started_at", "STARTED"),
    ]
    output.show(common, rows, columns, empty="No worker has run yet.")
