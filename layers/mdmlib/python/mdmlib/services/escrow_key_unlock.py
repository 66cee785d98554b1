"""Ending a device's Activation Lock with its escrow key (the server's half of a bypass code)."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from mdmlib.errors import BadRequestError
from mdmlib.observability import logger
from mdmlib.services.push_certificates import PushCertificates

if TYPE_CHECKING:
    from mdmlib.clients.escrow_key_unlock import EscrowKeyUnlockClient, UnlockAnswer

REQUIRED: Final = ("serial", "productType", "escrowKey", "orgName", "guid")
OPTIONAL: Final = ("imei", "imei2", "meid")
_IN_QUERY: Final = ("serial", "productType", "imei", "imei2", "meid")
_IN_FORM: Final = ("orgName", "guid", "escrowKey")


class EscrowKeyUnlock:
    """Passes such requests on to Apple, as the owner of a topic's push certificate."""

    def __init__(self, *, push_certificates: PushCertificates, client: "Callable[[], EscrowKeyUnlockClient]") -> None:
        self._push_certificates = push_certificates
        self._client = client

    def unlock(self, topic: str, parameters: Mapping[str, str]) -> "UnlockAnswer":
        """Return Apple's answer, whatever its status.

        Raises :class:`~mdmlib.errors.BadRequestError` for a missing parameter,
        :class:`~mdmlib.errors.NotFoundError` for a topic without a certificate, and
        :class:`~mdmlib.errors.UpstreamFailedError`.
        """
        if not topic:
            raise BadRequestError("empty topic", code="missing_field", field="topic")
        missing = next((name for name in REQUIRED if not parameters.get(name)), None)
        if missing:
            raise BadRequestError("invalid or missing parameters", code="missing_field", field=missing)
        identity = self._push_certificates.identity(topic)
        answer = self._client().unlock(
            identity,
            query={name: parameters.get(name, "") for name in _IN_QUERY},
            form={name: parameters[name] for name in _IN_FORM},
        )
        logger.info("Apple asked to end an Activation Lock", status=answer.status)
        return answer
