"""HTTP Basic, for a deployment with ``BasicAuth``: what scripts of other servers use, and ``picomdm`` without AWS.

Only the dialects are there, ``/v1``. What of ``/v2`` they have as well is asked for in their words; of everything else
it is said that it takes an administrator of AWS.
"""

import os
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from picomdm.errors import RefusedError, SetupError

if TYPE_CHECKING:
    from picomdm.admin_api import AdminAPI

USERS: Final = ("micromdm", "nanomdm", "nanohub")
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_THERE: Final = re.compile(r"/v1/|/push/|/migration$|/version$")


@dataclass(frozen=True)
class BasicAccess:
    """The devices' address, a user and an API key, or the environment variable that has it."""

    url: str
    user: str
    key: str | None = field(default=None, repr=False)
    key_variable: str | None = None

    @property
    def authorization(self) -> str:
        """The header's value. Raises :class:`~picomdm.errors.SetupError` where there is no key."""
        key = self.key or os.environ.get(self.key_variable or "")
        if not key:
            raise SetupError(f"The variable {self.key_variable} has no API key.", code="no_api_key")
        return f"Basic {b64encode(f'{self.user}:{key}'.encode()).decode()}"

    @staticmethod
    def check_url(url: str) -> None:
        """Refuse an address where the key would be sent in clear. Raises :class:`~picomdm.errors.SetupError`."""
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
            raise SetupError("The URL has to begin with https://: the API key is sent there.", code="invalid_url")


def is_there(path: str) -> bool:
    """Say whether a route is at the devices' address."""
    return _THERE.match(path) is not None


def translated(
    api: "AdminAPI",
    method: str,
    path: str,
    document: Any,  # noqa: ANN401 - any JSON
    query: Mapping[str, str],
) -> Any:  # noqa: ANN401 - any JSON
    """Ask for something of ``/v2`` in a dialect, and return the answer as ``/v2`` would give it; "" is unknown.

    Raises :class:`~picomdm.errors.SetupError` when no dialect has it.
    """
    for pattern, translation in _TRANSLATIONS.items():
        if match := re.fullmatch(pattern, f"{method} {path}"):
            return translation(api, match, document or {}, dict(query))
    raise SetupError(
        f"The dialects have no {method} {path}, and HTTP Basic has nothing else: use a context with credentials of AWS "
        "(picomdm contexts add NAME --stack …).",
        code="needs_aws",
    )


def _list_enrollments(api: "AdminAPI", _: re.Match[str], __: Any, query: dict[str, str]) -> Any:  # noqa: ANN401
    if "state" in query:
        raise SetupError("The dialects know no --state; leave it away.", code="needs_aws")
    wanted = {"serials": query.pop("serial_number", ""), "types": query.pop("type", "")}
    filter_ = {name: value.split(",") for name, value in wanted.items() if value}
    # Reading by POST: as repeatable as any GET.
    answer = api.request("POST", "/v1/enrollments/query", document={"filter": filter_}, query=query, repeatable=True)
    return {
        "enrollments": [_enrollment(entry) for entry in answer["enrollments"] or ()],
        "next_cursor": answer.get("next_cursor"),
    }


def _enrollment(entry: dict[str, Any]) -> dict[str, Any]:
    parent, _, user = entry["id"].partition(":")
    return {
        "id": entry["id"],
        "type": entry["type"],
        "parent_id": parent if user else None,
        "state": "enrolled" if entry["enabled"] else "not_enabled",
        "enabled": entry["enabled"],
        "blocked": False,
        "serial_number": entry.get("device", {}).get("serial_number") or None,
        **dict.fromkeys(("model", "product_name", "os_version", "device_name", "enrolled_at")),
        "last_seen_at": entry.get("last_seen"),
    }


def _list_commands(api: "AdminAPI", match: re.Match[str], _: Any, query: dict[str, str]) -> Any:  # noqa: ANN401
    pages = {name: value for name, value in query.items() if name in ("limit", "cursor")}
    answer = api.request("GET", f"/v1/queue/{match[1]}", query=pages, repeatable=True)
    return {
        "commands": [
            {
                "command_uuid": entry["command_uuid"],
                "request_type": entry["request_type"],
                "state": "pending",
                **dict.fromkeys(("enqueued_at", "expires_at", "not_before", "not_now_tally")),
            }
            for entry in answer["commands"]
        ],
        "next_cursor": answer.get("next_cursor"),
    }


def _clear(api: "AdminAPI", match: re.Match[str], _: Any, query: dict[str, str]) -> None:  # noqa: ANN401
    if query:
        raise SetupError("The dialects know no --with-users: name the users' enrollments.", code="needs_aws")
    api.request("DELETE", f"/v1/queue/{match[1]}", repeatable=True)


def _block(api: "AdminAPI", match: re.Match[str], *_: Any) -> None:  # noqa: ANN401
    api.request("POST", f"/v1/devices/{match[1]}/block", repeatable=True)


def _unblock(api: "AdminAPI", match: re.Match[str], *_: Any) -> None:  # noqa: ANN401
    api.request("POST", f"/v1/devices/{match[1]}/unblock", repeatable=True)


def _send(api: "AdminAPI", _: re.Match[str], document: dict[str, Any], __: Any) -> Any:  # noqa: ANN401
    """Queue a command for each id by itself; the CommandUUID makes them one command."""
    if "ids" not in document:
        raise SetupError("The dialects have no jobs: name enrollments, or up to 20 serial numbers.", code="needs_aws")
    command = document["command"]
    options = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in document.items()
        if name not in ("command", "ids")
    }
    refusals: dict[str, RefusedError] = {}
    for id_ in document["ids"]:
        try:
            api.request(
                "POST", "/v1/commands", document=command | {"udid": id_}, query=options or None, repeatable=True
            )
        except RefusedError as refused:
            refusals[id_] = refused
    if len(refusals) == len(document["ids"]) == 1:
        raise next(iter(refusals.values()))
    return {
        "command_uuid": command["command_uuid"],
        "request_type": command["request_type"],
        "queued": len(document["ids"]) - len(refusals),
        "targets": [_target(id_, refusals.get(id_)) for id_ in document["ids"]],
    }


def _target(id_: str, refused: RefusedError | None) -> dict[str, Any]:
    error = {"code": refused.code, "detail": refused.message} if refused else None
    return {"id": id_, "queued": refused is None, "push_id": None, "push_error": None, "error": error}


def _challenge(api: "AdminAPI", _: re.Match[str], document: dict[str, Any], __: Any) -> Any:  # noqa: ANN401
    if document.get("serial_number") or document.get("expires_in") != _A_DAY:
        raise SetupError("MicroMDM's challenges are good for a day and for any device.", code="needs_aws")
    return {"challenge": api.request("POST", "/v1/challenge")["string"], "expires_at": None, "serial_number": None}


_A_DAY: Final = 86_400
_TRANSLATIONS: Final[dict[str, Callable[..., Any]]] = {
    r"GET /v2/enrollments": _list_enrollments,
    r"GET /v2/enrollments/([^/]+)/commands": _list_commands,
    r"DELETE /v2/enrollments/([^/]+)/commands": _clear,
    r"PUT /v2/enrollments/([^/]+)/block": _block,
    r"DELETE /v2/enrollments/([^/]+)/block": _unblock,
    r"POST /v2/commands": _send,
    r"POST /v2/scep-challenges": _challenge,
}
