"""Requests that do once what they ask for, however often they are sent: by a key that their sender chose.

Who did not get an answer sends the request again under the same ``Idempotency-Key`` and is given the answer of the
first one, for a day. https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from pynamodb.exceptions import DeleteError, PutError

from mdmlib.errors import ConflictError
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import IdempotentRequest

if TYPE_CHECKING:
    from mdmlib.store.sealing import Sealer

_COLLECTION: Final = "idempotent_request"
_KEEP: Final = timedelta(days=1)
_LONGEST: Final = timedelta(seconds=60)
"""A request that has not come to its end by then never will: API Gateway gives up after 30 s, Lambda soon after."""
_LONGEST_ANSWER: Final = 300 * 1024


@dataclass(frozen=True)
class RememberedAnswer:
    """What a request was answered."""

    status: int
    content_type: str
    body: str


class IdempotentRequests:
    """Remembers requests by their keys, and what they were answered, sealed: a link's URL is a secret."""

    def __init__(self, *, sealer: "Sealer", now: Callable[[], datetime]) -> None:
        self._sealer = sealer
        self._now = now

    def begin(self, route: str, key: str, body: bytes) -> RememberedAnswer | None:
        """Take note of a request that begins, and return None; or the answer that it was given before.

        Raises :class:`~mdmlib.errors.ConflictError` when the key was used for another request
        (``idempotency_key_reused``), and while the first one goes on (``request_in_progress``).
        """
        now = int(self._now().timestamp())
        name, body_hash = _name(route, key), hashlib.sha256(body).hexdigest()
        item = IdempotentRequest(
            _COLLECTION,
            name,
            body_hash=body_hash,
            until=now + int(_LONGEST.total_seconds()),
            ttl=now + int(_KEEP.total_seconds()),
        )
        # DynamoDB deletes what has ended when it finds time to.
        free = (
            IdempotentRequest.name.does_not_exist()
            | (IdempotentRequest.ttl <= now)
            | (IdempotentRequest.answer.does_not_exist() & (IdempotentRequest.until <= now))
        )
        try:
            item.save(condition=free)
        except PutError as error:
            if not condition_failed(error):
                raise
            return self._before(name, body_hash)
        return None

    def end(self, route: str, key: str, answer: RememberedAnswer | None) -> None:
        """Remember a request's answer, or forget the request: it did nothing, and may be sent again."""
        name = _name(route, key)
        if answer is None:
            try:
                IdempotentRequest(_COLLECTION, name).delete(condition=IdempotentRequest.answer.does_not_exist())
            except DeleteError as error:
                if not condition_failed(error):
                    raise
            return
        content = json.dumps(asdict(answer)).encode()
        if len(content) > _LONGEST_ANSWER:
            return
        sealed = self._sealer.seal(content, place=f"{_COLLECTION}/{name}")
        IdempotentRequest(_COLLECTION, name).update([IdempotentRequest.answer.set(sealed)])

    def _before(self, name: str, body_hash: str) -> RememberedAnswer:
        item = IdempotentRequest.get(_COLLECTION, name, consistent_read=True)
        if item.body_hash != body_hash:
            raise ConflictError(
                "The Idempotency-Key was used for another request; choose a new one.", code="idempotency_key_reused"
            )
        if item.answer is None:
            raise ConflictError(
                "The same request is still being carried out; ask again in a moment.", code="request_in_progress"
            )
        return RememberedAnswer(**json.loads(self._sealer.open(item.answer, place=f"{_COLLECTION}/{name}")))


def _name(route: str, key: str) -> str:
    return hashlib.sha256(f"{route}\n{key}".encode()).hexdigest()
