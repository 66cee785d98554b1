"""``Idempotency-Key``: a POST of ``/v2`` that is sent again is answered as before and does nothing twice."""

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aws_lambda_powertools.event_handler import Response

from mdmlib.errors import BadRequestError
from mdmlib.http.gateway import body_of, headers_of
from mdmlib.services.idempotent_requests import RememberedAnswer

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import APIGatewayHttpResolver

    from mdmlib.services.idempotent_requests import IdempotentRequests

HEADER: Final = "idempotency-key"
REPEATED_HEADER: Final = "Idempotency-Replayed"
LONGEST_KEY: Final = 255


def remember_answers(app: "APIGatewayHttpResolver", requests: "Callable[[], IdempotentRequests]") -> None:
    """Let each POST of ``/v2`` that has a key be carried out once. What fails is not remembered."""

    def answer_once(app: "APIGatewayHttpResolver", go_on: Callable[..., Response[Any]]) -> Response[Any]:
        event = app.current_event
        key = headers_of(event).get(HEADER, "")
        if not key or event.http_method != "POST" or not event.raw_path.startswith("/v2/"):
            return go_on(app)
        if len(key) > LONGEST_KEY or not key.isascii() or not key.isprintable():
            raise BadRequestError(
                f"An Idempotency-Key has at most {LONGEST_KEY} printable ASCII characters.", code="invalid_field"
            )
        remembered = requests().begin(event.raw_path, key, body_of(event))
        if remembered:
            headers = {"Cache-Control": "no-store", REPEATED_HEADER: "true"}
            return Response(remembered.status, remembered.content_type, remembered.body, headers)
        answer = None
        try:
            response = go_on(app)
            if HTTPStatus.OK <= response.status_code < HTTPStatus.MULTIPLE_CHOICES:
                answer = RememberedAnswer(
                    response.status_code, str(response.content_type or "application/json"), str(response.body or "")
                )
        finally:
            requests().end(event.raw_path, key, answer)
        return response

    app.use([answer_once])
