"""Everything about the vendor's API that no public text says, and the simulator's own pace.

Each field that is marked *assumed* is one guess about real hardware. Change it at run time with
``PATCH /simulator/v1/settings``.
"""

from typing import Literal

import msgspec


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All settings, with their defaults."""

    # --- pace ---------------------------------------------------------------------------------------------------
    task_seconds: float = 0.05
    """How long each task takes at least."""

    cft_seconds: float = 0.1
    """How long a list of changed contents is computed at least."""

    cft_keep_seconds: float = 86_400.0
    """Assumed: a computed list is forgotten when nobody read it for so long. All lists go at a restart."""

    delete_lag_seconds: float = 0.0
    """Assumed 0: how long a deleted snapshot still answers 200 after its task succeeded."""

    clock_skew_seconds: float = 0.0
    """How far the simulator's clock (header ``Date``, all times in answers) runs ahead of the real one."""

    # --- changed contents ---------------------------------------------------------------------------------------
    cft_page_entries: int = 300
    """Entries in a page; the vendor says 300 at most."""

    cft_next_token_in: Literal["both", "header", "extra_info"] = "both"  # noqa: S105
    """Assumed: where the next page's token is: header ``X-Next-Page-Token``, ``metadata.extraInfo``, both."""

    cft_lists_renamed_children: bool = False
    """Assumed: whether a directory's rename lists everything below it too."""

    cft_path_form: Literal["by_protocol", "nfs", "smb", "relative"] = "by_protocol"
    """Assumed: a path that is not asked for as relative is ``<fqdn>:/<share>/dir/file`` (nfs) or
    ``\\\\<fqdn>\\<share>\\dir\\file`` (smb). ``by_protocol``: smb for shares without NFS, else nfs."""

    # --- snapshots and tasks ------------------------------------------------------------------------------------
    created_entity_rel: str = "files:config:{kind}"
    """Assumed: ``rel`` of a task's entities; ``{kind}`` is ``snapshot``, ``mount-target`` or ``partner-server``."""

    max_snapshots_per_share: int = 200
    """Assumed: one more is refused with 422."""

    snapshot_directory: str = ".snapshot"
    """Assumed: the directory of an export in which the snapshots show."""

    # --- requests -----------------------------------------------------------------------------------------------
    request_id_scope: Literal["account_method_path", "account", "off"] = "account_method_path"
    """Assumed: what an ``NTNX-Request-Id`` is unique within; a repeated one gets the first answer again."""

    request_id_required: bool = False
    """Assumed: whether a changing request without ``NTNX-Request-Id`` is refused with 400."""

    request_id_keep_seconds: float = 86_400.0
    """Assumed: how long a request id is remembered."""

    etag_required: bool = True
    """Assumed: PUT and restore without ``If-Match`` are refused with 412, as with a stale one."""

    session_cookie: bool = True
    """Whether basic authentication opens a session and sets ``NTNX_IGW_SESSION``."""

    # --- partner servers ----------------------------------------------------------------------------------------
    partner_put: Literal["delta", "replace"] = "delta"
    """Assumed: PUT merges ADD and takes away REMOVE (delta), or the sent entries are the new whole (replace)."""

    partner_expiry_default: int = 86_400
    """Seconds until an entry ends when ``expiryInSecs`` is absent; documented."""

    # --- errors -------------------------------------------------------------------------------------------------
    error_codes: dict[str, str] = {}
    """Assumed: another code for an error, by its kind in :data:`.errors.TABLE`."""


def check(settings: Settings) -> None:
    """Raise ``ValueError`` for values that types cannot exclude."""
    if not 1 <= settings.cft_page_entries <= 300:
        raise ValueError("cft_page_entries must be 1 to 300")
    if "/" in settings.snapshot_directory or settings.snapshot_directory in {"", ".", ".."}:
        raise ValueError("snapshot_directory must be one file name")
    for name in ("task_seconds", "cft_seconds", "cft_keep_seconds", "delete_lag_seconds"):
        if getattr(settings, name) < 0:
            raise ValueError(f"{name} must not be negative")


def stored(values: dict[str, object]) -> Settings:
    """Settings of an earlier run, perhaps of another version: what is not known any more is left out."""
    known = {name: value for name, value in values.items() if name in Settings.__struct_fields__}
    return msgspec.convert(known, Settings)


def changed(settings: Settings, patch: dict[str, object]) -> Settings:
    """The settings with some fields replaced. Raises ``ValueError`` or ``msgspec.ValidationError``."""
    result = msgspec.convert({**msgspec.to_builtins(settings), **patch}, Settings)
    check(result)
    return result
