"""A simulator of Nutanix Files: the REST API v4.0 of a Prism Central, with real file trees behind the shares."""

from snapkeep.simulators.nutanix_files.options import Options

__all__ = ["Options", "run"]


def run(options: Options) -> None:
    """Run the simulator until SIGTERM or SIGINT; see :func:`snapkeep.simulators.nutanix_files.main.run`."""
    from snapkeep.simulators.nutanix_files.main import run as run_simulator  # noqa: PLC0415 - keeps import cheap

    run_simulator(options)
