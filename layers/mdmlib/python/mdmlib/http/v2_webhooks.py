"""PicoMDM's own API, ``/v2``: who hears of events."""

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from mdmlib.errors import BadRequestError
from mdmlib.http.admin_edge import AdminRequest, answer_v2, no_content
from mdmlib.http.etags import seen
from mdmlib.http.fields import Fields
from mdmlib.http.v2 import listed, rfc3339
from mdmlib.services.enrollments import Page
from mdmlib.services.webhook_filters import FILTERS, WebhookFilter

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.webhook_replays import Replay, WebhookReplays
    from mdmlib.services.webhook_tests import WebhookTests
    from mdmlib.services.webhooks import Webhooks
    from mdmlib.store.tables import WebhookSubscription
    from mdmlib.store.unchanged import OnlyIf

_OF_A_CREATION: Final = ("url", *FILTERS, "hmac_key", "headers", "redact")
_OF_A_CHANGE: Final = (*_OF_A_CREATION, "next_hmac_key", "promote_next_hmac_key", "paused", "drop_events")
_LONGEST: Final = 4_000


def create_webhook(request: AdminRequest, webhooks: "Webhooks") -> "Response[str]":
    """``POST /v2/webhooks``: send the events that pass the filters to a URL, signed when ``hmac_key`` is given."""
    fields = Fields(request.json(), known=_OF_A_CREATION)
    subscription = webhooks.create(
        fields.required_text("url", longest=_LONGEST),
        WebhookFilter.checked({name: fields.texts(name) for name in FILTERS}),
        hmac_key=fields.text("hmac_key", longest=_LONGEST),
        headers=fields.object("headers"),
        redact=fields.text("redact"),
    )
    return answer_v2(HTTPStatus.CREATED, _webhook(subscription, webhooks))


def list_webhooks(request: AdminRequest, webhooks: "Webhooks") -> "Response[str]":
    """``GET /v2/webhooks``: all subscriptions, without their keys."""
    Fields(request.query, known=())
    page = Page(webhooks.list())
    return answer_v2(HTTPStatus.OK, listed("webhooks", page, lambda one: _webhook(one, webhooks)))


def get_webhook(subscription_id: str, request: AdminRequest, webhooks: "Webhooks") -> "Response[str]":
    """``GET /v2/webhooks/{id}``: one subscription, and what became of its last test."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _webhook(webhooks.get(subscription_id), webhooks))


def patch_webhook(subscription_id: str, request: AdminRequest, webhooks: "Webhooks") -> "Response[str]":
    """``PATCH /v2/webhooks/{id}``: change what is named. Null takes a filter, a key, the headers away."""
    asked = request.json()
    fields = Fields(asked, known=_OF_A_CHANGE)
    read: dict[str, Any] = {
        "url": fields.text("url", longest=_LONGEST),
        **{name: fields.texts(name) for name in FILTERS},
        "hmac_key": fields.text("hmac_key", longest=_LONGEST),
        "headers": fields.object("headers"),
        "redact": fields.text("redact"),
        "next_hmac_key": fields.text("next_hmac_key", longest=_LONGEST),
        **{name: _flag(fields, asked, name) for name in ("promote_next_hmac_key", "paused", "drop_events")},
    }
    if "url" in asked and read["url"] is None:
        raise BadRequestError("A webhook has a URL.", code="invalid_field", field="url")
    changes = {name: read[name] for name in asked}
    changed = webhooks.change(subscription_id, changes, only_if=_as_seen(request, webhooks))
    return answer_v2(HTTPStatus.OK, _webhook(changed, webhooks))


def delete_webhook(subscription_id: str, request: AdminRequest, webhooks: "Webhooks") -> "Response[str]":
    """``DELETE /v2/webhooks/{id}``: send it no more events."""
    webhooks.delete(subscription_id, only_if=_as_seen(request, webhooks))
    return no_content()


def try_webhook(subscription_id: str, request: AdminRequest, tests: "WebhookTests") -> "Response[str]":
    """``POST /v2/webhooks/{id}/test``: send it a test; ``last_test`` of the subscription tells what became of it."""
    if request.body.strip():
        Fields(request.json(), known=())
    return answer_v2(HTTPStatus.ACCEPTED, {"event_id": tests.send(subscription_id)})


def start_replay(subscription_id: str, request: AdminRequest, replays: "WebhookReplays") -> "Response[str]":
    """``POST /v2/webhooks/{id}/replays``: send it the events from ``start`` to ``end`` again."""
    fields = Fields(request.json(), known=("start", "end"))
    replay = replays.start(subscription_id, start=_moment(fields, "start"), end=_moment(fields, "end"))
    return answer_v2(HTTPStatus.ACCEPTED, _replay(replay))


def get_replay(subscription_id: str, name: str, request: AdminRequest, replays: "WebhookReplays") -> "Response[str]":
    """``GET /v2/webhooks/{id}/replays/{replay}``: how far it is."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _replay(replays.get(subscription_id, name)))


def cancel_replay(subscription_id: str, name: str, replays: "WebhookReplays") -> "Response[str]":
    """``DELETE /v2/webhooks/{id}/replays/{replay}``: stop it."""
    replays.cancel(subscription_id, name)
    return no_content()


def _flag(fields: Fields, asked: Mapping[str, Any], name: str) -> bool | None:
    return None if asked.get(name) is None else fields.flag(name, default=False)


def _moment(fields: Fields, name: str) -> datetime:
    text = fields.required_text(name)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadRequestError(
            f"{name} has to be a time such as 2026-11-20T12:00:00Z.", code="invalid_field", field=name
        )
    return moment


def _as_seen(request: AdminRequest, webhooks: "Webhooks") -> "OnlyIf[WebhookSubscription] | None":
    return seen(request, lambda subscription: _webhook(subscription, webhooks))


def _webhook(subscription: "WebhookSubscription", webhooks: "Webhooks") -> dict[str, Any]:
    return {
        "id": subscription.name,
        "url": subscription.url,
        **{name: getattr(subscription, name) for name in FILTERS},
        "redact": subscription.redact,
        "header_names": subscription.header_names or [],
        "signed": subscription.hmac_key is not None,
        "next_key_waits": subscription.next_hmac_key is not None,
        "created_at": rfc3339(subscription.created_at),
        "paused_at": rfc3339(subscription.paused_at),
        "drops_events": bool(subscription.drops_events),
        "held_until": rfc3339(subscription.held_until),
        "failures": int(subscription.failures),
        "slow": subscription.slow_ms is not None,
        "last_test": webhooks.last_test(subscription),
    }


def _replay(replay: "Replay") -> dict[str, Any]:
    return {
        "name": replay.name,
        "webhook_id": replay.webhook_id,
        "state": replay.state,
        "start": rfc3339(replay.start.timestamp()),
        "end": rfc3339(replay.end.timestamp()),
        "replayed_until": rfc3339(replay.replayed_until.timestamp()) if replay.replayed_until else None,
        "reason": replay.reason,
    }
