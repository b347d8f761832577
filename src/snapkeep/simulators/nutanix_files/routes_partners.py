"""Partner servers: the backup hosts that may read.

Documented: paths, verbs, models, ``If-Match`` and the default expiry. Assumed: what PUT does (see
:mod:`.partners`), the refusals, and that a new ETag is due when a change is accepted and again when it is done.
"""

from typing import Any

import msgspec

from snapkeep.simulators.kit.web import Answer, Router
from snapkeep.simulators.nutanix_files import envelope, wire
from snapkeep.simulators.nutanix_files.errors import ApiError
from snapkeep.simulators.nutanix_files.guards import Handler, need_match
from snapkeep.simulators.nutanix_files.model import Partner
from snapkeep.simulators.nutanix_files.query import page_of
from snapkeep.simulators.nutanix_files.routes_shares import SERVERS
from snapkeep.simulators.nutanix_files.state import new_id
from snapkeep.simulators.nutanix_files.validation import Checker, Json, address_of, body_of
from snapkeep.simulators.nutanix_files.work import CREATE_PARTNER, DELETE_PARTNER, UPDATE_PARTNER
from snapkeep.simulators.nutanix_files.world import Call

router: Router[Handler] = Router()
PARTNERS = SERVERS + "/{fsId}/partner-servers"
PARTNER = PARTNERS + "/{partnerId}"
TYPES = ("NOTIFICATION", "BACKUP", "MIGRATION")


def _named(call: Call) -> Partner:
    server = call.state.file_server(call.parameters["fsId"])
    found = call.state.partners.get(call.parameters["partnerId"])
    if found is None or found.file_server != server.id:
        raise ApiError("partner_not_found", id=call.parameters["partnerId"])
    return found


def _of_server(call: Call) -> list[Partner]:
    server = call.state.file_server(call.parameters["fsId"])
    return [partner for partner in call.state.partners.values() if partner.file_server == server.id]


@router.on("GET", PARTNERS, "View_Partner_Server")
def list_partners(call: Call) -> Answer:
    """``ListPartnerServersApiResponse``."""
    page = page_of(_of_server(call), wire.partner, call.request.query, wire.PARTNER_FIELDS)
    return envelope.many(
        call.request, "files.v4.config.ListPartnerServersApiResponse", "files.v4.config.PartnerServer", page
    )


@router.on("GET", PARTNER, "View_Partner_Server")
def get_partner(call: Call) -> Answer:
    """``GetPartnerServerApiResponse`` with the ETag that PUT needs."""
    partner = _named(call)
    return envelope.one(
        call.request,
        "files.v4.config.GetPartnerServerApiResponse",
        wire.partner(partner),
        etag=wire.etag(partner.id, partner.version),
    )


@router.on("POST", PARTNERS, "Create_Partner_Server")
def create_partner(call: Call) -> Answer:
    """A new partner server, at the task's success."""
    server = call.state.file_server(call.parameters["fsId"])
    fields, access = _fields(call, server.id)
    coming = [task.arguments["partner"] for task in call.world.tasks.open_tasks(CREATE_PARTNER)]
    taken = {each.name for each in _of_server(call)}
    taken |= {each["name"] for each in coming if each["file_server"] == server.id}
    if fields["name"] in taken:
        raise ApiError("partner_exists", name=fields["name"])
    partner = {"id": new_id(), "file_server": server.id, **fields}
    task = call.start_task(CREATE_PARTNER, {"partner": partner, "access": access}, [])
    return envelope.task(call.request, "files.v4.config.CreatePartnerServerApiResponse", task)


@router.on("PUT", PARTNER, "Update_Partner_Server")
def update_partner(call: Call) -> Answer:
    """Needs ``If-Match``; the entries are merged or replaced by a setting."""
    partner = _named(call)
    need_match(call, wire.etag(partner.id, partner.version), f"partner server {partner.name}")
    fields, access = _fields(call, partner.file_server)
    if fields["name"] != partner.name and fields["name"] in {each.name for each in _of_server(call)}:
        raise ApiError("partner_exists", name=fields["name"])
    partner.version += 1
    call.state.save(partner)
    entity = call.world.work.entity("partner-server", partner.id, partner.name)
    arguments = {"id": partner.id, "changes": fields, "access": access}
    task = call.start_task(UPDATE_PARTNER, arguments, [entity])
    return envelope.task(call.request, "files.v4.config.UpdatePartnerServerApiResponse", task)


@router.on("DELETE", PARTNER, "Delete_Partner_Server")
def delete_partner(call: Call) -> Answer:
    """All access that it opened ends."""
    partner = _named(call)
    entity = call.world.work.entity("partner-server", partner.id, partner.name)
    task = call.start_task(DELETE_PARTNER, {"id": partner.id}, [entity])
    return envelope.task(call.request, "files.v4.config.DeletePartnerServerApiResponse", task)


def _fields(call: Call, file_server: str) -> tuple[dict[str, Any], list[tuple[str, Json]]]:
    """The body as fields of :class:`Partner`, and its entries as (operation, fields of an entry)."""
    check = Checker(body_of(call.request))
    fields: dict[str, Any] = {
        "name": check.text("name", most=64, least=1, required=True),
        "vendor_name": check.text("vendorName", most=256, required=True),
        "partner_type": check.word("partnerType", TYPES, required=True),
        "expiry_in_secs": call.state.settings.partner_expiry_default,
    }
    optional = {
        "description": check.text("description", most=180),
        "vendor_properties": check.object("vendorProperties"),
    }
    fields |= {name: value for name, value in optional.items() if value is not None}
    config = check.object("backupServerConfig")
    access: list[tuple[str, Json]] = []
    if config is not None:
        inner = Checker(config, "backupServerConfig.")
        fields["has_config"] = True
        fields["expiry_in_secs"] = inner.number("expiryInSecs", least=1) or fields["expiry_in_secs"]
        for number, entry in enumerate(inner.objects("backupClientAccessConfigs")):
            row = Checker(entry, f"backupServerConfig.backupClientAccessConfigs[{number}].")
            parsed = _entry(row)
            inner.complaints += row.complaints
            if parsed is not None:
                access.append(parsed)
        check.complaints += inner.complaints
    check.done()
    for _, entry in access:
        if entry["share"] is not None:
            call.state.share(file_server, entry["share"])
    return fields, access


def _entry(row: Checker) -> tuple[str, Json] | None:
    address = address_of(row.object("address", required=True) or {})
    access_type = row.word("accessType", ("READ_WRITE", "READ_ONLY"), required=True)
    operation = row.word("operationType", ("ADD", "REMOVE"), required=True)
    share = row.text("mountTargetExtId", most=64)
    if address is None:
        row.complain("address", "address must be a valid ipv4, ipv6 or fqdn")
    if row.complaints or address is None or operation is None:
        return None
    kind, value, prefix_length = address
    entry: Json = {
        "client": value,
        "kind": kind,
        "prefix_length": prefix_length,
        "access_type": access_type,
        "share": share,
        "expires": 0.0,
    }
    return operation, msgspec.to_builtins(entry)
