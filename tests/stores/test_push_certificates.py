"""Push certificates: one a topic, renewed without a restart, its key never in clear."""

import pytest

from local.apns.portal import Authority
from mdmlib.apple.certificates import PushIdentity
from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.services.push_certificates import PushCertificates
from mdmlib.store import tables
from mdmlib.store.sealing import Sealer
from tests.deployment import Clock, TableNames

TOPIC = "com.apple.mgmt.External.one"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("Portal")


@pytest.fixture(scope="module")
def pem(authority: Authority) -> bytes:
    return authority.issue_push(TOPIC)


@pytest.fixture(scope="module")
def renewed_pem(authority: Authority) -> bytes:
    return authority.issue_push(TOPIC, days=700)


@pytest.fixture
def certificates(tables: TableNames, sealer: Sealer, clock: Clock) -> PushCertificates:
    return PushCertificates(sealer=sealer, now=clock)


def test_what_was_uploaded_is_there(certificates: PushCertificates, pem: bytes) -> None:
    identity = PushIdentity.decode(pem)

    info = certificates.upload(pem)

    assert (info.topic, info.not_after) == (TOPIC, identity.not_after)
    assert certificates.get(TOPIC) == info
    assert certificates.identity(TOPIC) == identity


def test_all_topics_are_listed_in_order(certificates: PushCertificates, authority: Authority, pem: bytes) -> None:
    assert certificates.topics() == []
    other = certificates.upload(authority.issue_push("com.apple.mgmt.External.another"))
    one = certificates.upload(pem)

    assert certificates.topics() == [other, one]


def test_the_private_key_is_sealed(certificates: PushCertificates, pem: bytes) -> None:
    certificates.upload(pem)

    item = tables.PushCertificate.get("push_certificate", TOPIC)

    assert b"PRIVATE KEY" not in bytes(item.private_key)
    assert b"PRIVATE KEY" not in bytes(item.certificate)
    assert "PRIVATE KEY" not in repr(certificates.identity(TOPIC))


def test_an_unknown_topic_is_said_to_be_unknown(certificates: PushCertificates) -> None:
    with pytest.raises(NotFoundError) as caught:
        certificates.get(TOPIC)

    assert (caught.value.code, caught.value.field) == ("push_certificate_not_found", "topic")


def test_half_an_upload_changes_nothing(certificates: PushCertificates, pem: bytes) -> None:
    certificates.upload(pem)

    with pytest.raises(BadRequestError):
        certificates.upload(pem.split(b"-----BEGIN PRIVATE KEY")[0])

    assert certificates.identity(TOPIC) == PushIdentity.decode(pem)


class TestRenewal:
    @pytest.fixture
    def another_function(self, tables: TableNames, sealer: Sealer, clock: Clock, pem: bytes) -> PushCertificates:
        """What another warm function knows: the certificate before its renewal."""
        others = PushCertificates(sealer=sealer, now=clock)
        others.upload(pem)
        return others

    def test_it_is_noticed_within_a_minute(
        self, certificates: PushCertificates, another_function: PushCertificates, clock: Clock, renewed_pem: bytes
    ) -> None:
        certificates.upload(renewed_pem)
        before = another_function.identity(TOPIC)
        clock.advance(seconds=60)

        renewed = PushIdentity.decode(renewed_pem)
        assert before != renewed
        assert another_function.identity(TOPIC) == renewed

    def test_it_is_noticed_at_once_when_the_known_one_does_not_serve(
        self, certificates: PushCertificates, another_function: PushCertificates, renewed_pem: bytes
    ) -> None:
        certificates.upload(renewed_pem)

        assert another_function.identity(TOPIC, fresh=True) == PushIdentity.decode(renewed_pem)

    def test_a_first_upload_is_noticed_at_once(
        self, certificates: PushCertificates, tables: TableNames, sealer: Sealer, clock: Clock, pem: bytes
    ) -> None:
        other = PushCertificates(sealer=sealer, now=clock)
        with pytest.raises(NotFoundError):
            other.get(TOPIC)

        info = certificates.upload(pem)

        assert other.get(TOPIC) == info
