"""``/v2``: inventory, escrowed secrets, and plans that need no blueprint."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from mdmlib.http.admin_edge import AdminRequest, answer_v2
from mdmlib.http.fields import Fields
from mdmlib.http.v2 import listed, page_asked_for, rfc3339
from mdmlib.services.builtin_plans import MAX_IDS
from mdmlib.services.enrollments import Page
from mdmlib.services.escrow import MAX_REASON
from mdmlib.services.inventory import SEARCHED

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.builtin_plans import BuiltinPlans
    from mdmlib.services.escrow import Escrow
    from mdmlib.services.inventory import Found, InventoryStore
    from mdmlib.store.tables import EscrowedSecret

_FILTERS: Final = (*SEARCHED, "app", "certificate")


def start_plans(request: AdminRequest, builtin: "BuiltinPlans") -> "Response[str]":
    """``POST /v2/plans``: begin plans of a ``kind`` for ``ids``. 202 when they begin for all, 207 when not."""
    fields = Fields(request.json(), known=("kind", "ids", "options"))
    ids = fields.texts("ids", most=MAX_IDS) or []
    started = builtin.start(fields.required_text("kind"), ids, fields.object("options") or {})
    targets = [
        {
            "id": id_,
            "begun": id_ not in started.refused,
            "error": ({"code": error.code, "detail": error.message} if (error := started.refused.get(id_)) else None),
        }
        for id_ in dict.fromkeys(ids)
    ]
    status = HTTPStatus.MULTI_STATUS if started.refused else HTTPStatus.ACCEPTED
    return answer_v2(status, {"run": started.run, "targets": targets})


def search_inventory(request: AdminRequest, inventory: "InventoryStore") -> "Response[str]":
    """``GET /v2/inventory``: the devices that fit all filters, such as ``app=com.example.app&fde_enabled=false``."""
    query = Fields(request.query, known=(*_FILTERS, "limit", "cursor"))
    limit, after = page_asked_for(query)
    filters = {name: value for name in _FILTERS if (value := query.text(name)) is not None}
    page = inventory.search(filters, limit=min(limit, 100), after=after)
    told = listed("inventory", Page(page.found, page.position), _summary)
    return answer_v2(HTTPStatus.OK, told | {"examined": page.examined})


def get_inventory(enrollment_id: str, request: AdminRequest, inventory: "InventoryStore") -> "Response[str]":
    """``GET /v2/enrollments/{id}/inventory``: what is known of a device."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _whole(inventory.get(enrollment_id)))


def get_inventory_changes(enrollment_id: str, request: AdminRequest, inventory: "InventoryStore") -> "Response[str]":
    """``GET /v2/enrollments/{id}/inventory-changes``: how that changed, the newest first."""
    limit = Fields(request.query, known=("limit",)).integer("limit", least=1, most=100) or 100
    found = inventory.changes(enrollment_id, limit=limit)
    entries = [{"changed_at": rfc3339(at), "changes": changes} for at, changes in found]
    return answer_v2(HTTPStatus.OK, {"inventory_changes": entries, "next_cursor": None})


def list_escrow(owner: str, request: AdminRequest, escrow: "Escrow") -> "Response[str]":
    """``GET /v2/escrow/{owner}``: which keys and PINs of a device are escrowed, without them."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, listed("escrowed_secrets", Page(escrow.list(owner)), _escrowed))


def reveal(owner: str, kind: str, request: AdminRequest, escrow: "Escrow") -> "Response[str]":
    """``POST /v2/escrow/{owner}/{kind}/reveal``: read one; who did and why is published first."""
    reason = Fields(request.json(), known=("reason",)).required_text("reason", longest=MAX_REASON)
    revealed = escrow.reveal(owner, kind, who=request.caller, why=reason)
    return answer_v2(
        HTTPStatus.OK,
        {
            "owner": owner,
            "kind": revealed.kind,
            "value": revealed.value,
            "escrowed_at": rfc3339(revealed.escrowed_at),
            "event_id": revealed.event_id,
        },
    )


def _summary(found: "Found") -> dict[str, Any]:
    return {
        "enrollment_id": found.enrollment_id,
        "collected_at": rfc3339(found.collected_at),
        "keys": found.known.keys,
        "apps": len(found.known.apps),
        "certificates": len(found.known.certificates),
    }


def _whole(found: "Found") -> dict[str, Any]:
    known = found.known
    return {
        "enrollment_id": found.enrollment_id,
        "collected_at": rfc3339(found.collected_at),
        "keys": known.keys,
        "apps": [
            {"identifier": identifier, "version": version, "name": known.app_names.get(identifier) or None}
            for identifier, version in sorted(known.apps.items())
        ],
        "certificates": [
            {
                "sha256": sha256,
                "common_name": one["common_name"],
                "not_after": one["not_after"] or None,
                "is_identity": one["is_identity"] == "true",
            }
            for sha256, one in sorted(known.certificates.items())
        ],
    }


def _escrowed(item: "EscrowedSecret") -> dict[str, Any]:
    return {
        "kind": item.kind,
        "enrollment_id": item.owner_enrollment,
        "escrowed_at": rfc3339(item.escrowed_at),
        "revealed_at": rfc3339(item.revealed_at),
    }
