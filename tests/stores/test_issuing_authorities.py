"""One CA follows another: who issues, who answers, and whose certificates are trusted meanwhile."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from local.emulator import Emulator
from mdmlib.apple.certificates import new_certificate_authority
from mdmlib.apple.cms import SignerCertificate
from mdmlib.apple.identity import IdentityVerifier
from mdmlib.errors import BadRequestError, ConflictError, NotFoundError, PicoMDMError
from mdmlib.services.certificate_authority import CertificateAuthorityService
from mdmlib.services.device_identity import trusted_certificates
from mdmlib.services.issuing_authorities import IssuingAuthorities, IssuingAuthorityStore, Phase, phase_of
from mdmlib.services.scep_challenges import ScepChallenges
from mdmlib.services.static_challenge import StaticChallenge
from mdmlib.settings import Settings
from mdmlib.store.enrollments import EnrollmentStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import CertificateAuthority
from tests.deployment import Clock
from tests.scep_client import ScepClient, rsa_key

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
BAD_CERT_ID = "4"


class Process:
    """What one process of the enroll function has in its memory."""

    def __init__(self, settings: Settings, sealer: Sealer, clock: Clock) -> None:
        self.clock = clock
        self.store = IssuingAuthorityStore(sealer=sealer, settings=settings, now=clock)
        self.challenges = ScepChallenges(sealer=sealer, now=clock)
        self.service = CertificateAuthorityService(
            authorities=self.store,
            enrollments=EnrollmentStore(),
            challenges=self.challenges,
            static_challenge=StaticChallenge(sealer=sealer, now=clock),
            settings=settings,
            now=clock,
        )

    @property
    def known(self) -> IssuingAuthorities:
        return self.store.load()

    @property
    def in_use(self) -> str:
        return self.known.current.name

    def client(self, **form: Any) -> ScepClient:
        """Return a client that has just asked for the CA's certificate."""
        return ScepClient(self.service.load().certificate, **form)

    def request(self, client: ScepClient) -> bytes:
        return client.request(self.challenges.new(None, self.clock() + timedelta(hours=1)))


MakeProcess = Callable[[], Process]


@pytest.fixture
def process(aws: Emulator, settings: Settings, sealer: Sealer, clock: Clock) -> MakeProcess:
    return lambda: Process(settings, sealer, clock)


def is_trusted(certificate: x509.Certificate, clock: Clock) -> bool:
    """Say whether the device edge, when it reads the authorities now, takes a certificate for one of ours."""
    verifier = IdentityVerifier(trusted_certificates(), grace=timedelta())
    try:
        verifier.verify(SignerCertificate(certificate.public_bytes(Encoding.DER)), at=clock())
    except PicoMDMError:
        return False
    return True


def phases(clock: Clock) -> dict[str, Phase]:
    items = list(CertificateAuthority.query("ca", consistent_read=True))
    return {item.name: phase_of(item, items, at=clock()) for item in items}


def test_a_prepared_ca_waits_is_told_of_and_trusted(process: MakeProcess, clock: Clock) -> None:
    one = process()
    old = one.service.load().certificate
    assert b"GetNextCACert" not in one.service.capabilities()
    with pytest.raises(BadRequestError) as refused:
        one.service.next_certificate()
    assert refused.value.code == "scep_no_next_ca"

    prepared = one.store.prepare()

    another = process()
    assert (prepared.name, another.in_use) == ("scep-2", "scep")
    assert phases(clock) == {"scep": Phase.IN_USE, "scep-2": Phase.NEXT}
    assert another.service.load().certificate == old
    assert b"GetNextCACert" in another.service.capabilities()
    assert another.known.next is not None
    following = another.known.next.identity.certificate
    assert following.public_bytes(Encoding.DER) in another.service.next_certificate()
    assert following.subject != old.subject
    assert following in trusted_certificates()


def test_to_ask_what_scep_can_do_makes_no_ca(process: MakeProcess) -> None:
    assert b"Renewal" in process().service.capabilities()
    assert list(CertificateAuthority.query("ca")) == []


def test_a_rollover_changes_who_issues_and_nothing_that_was_issued(process: MakeProcess, clock: Clock) -> None:
    one = process()
    client = one.client()
    issued = client.read(one.service.pki_operation(one.request(client))).certificate
    one.store.prepare()

    activated = one.store.activate("scep-2")

    assert one.store.activate("scep-2").activates_at == activated.activates_at, "once more is no more"
    another = process()
    assert phases(clock) == {"scep": Phase.FORMER, "scep-2": Phase.IN_USE}
    client = another.client(key=rsa_key("another"))
    later = client.read(another.service.pki_operation(another.request(client))).certificate
    assert later.issuer != issued.issuer
    assert is_trusted(issued, clock)
    assert is_trusted(later, clock)
    assert b"GetNextCACert" not in another.service.capabilities()
    with pytest.raises(ConflictError) as refused:
        another.store.activate("scep")
    assert refused.value.code == "ca_former"


def test_a_rollover_comes_at_its_time_with_nobody_at_work_in_processes_that_run(
    process: MakeProcess, clock: Clock
) -> None:
    one = process()
    one.store.load()
    one.store.prepare()
    one.store.activate("scep-2", at=clock() + MINUTE)
    running = process()

    assert running.in_use == "scep"
    assert phases(clock)["scep-2"] is Phase.NEXT
    clock.advance(seconds=60)
    assert running.in_use == "scep-2"
    assert phases(clock)["scep-2"] is Phase.IN_USE


def test_a_time_can_be_changed_until_it_comes(process: MakeProcess, clock: Clock) -> None:
    store = process().store
    store.load()
    store.prepare()
    store.activate("scep-2", at=clock() + DAY)
    store.activate("scep-2", at=clock() + 2 * DAY)
    clock.advance(days=1)

    assert process().in_use == "scep"
    clock.advance(days=1)
    assert process().in_use == "scep-2"


@pytest.mark.parametrize("after", [-MINUTE, 3653 * DAY], ids=["over", "beyond the end"])
def test_a_time_that_makes_no_sense_is_refused(process: MakeProcess, clock: Clock, after: timedelta) -> None:
    store = process().store
    store.load()
    store.prepare()

    with pytest.raises(BadRequestError) as refused:
        store.activate("scep-2", at=clock() + after)
    assert refused.value.field == "at"
    with pytest.raises(NotFoundError):
        store.activate("scep-3")


def test_running_processes_notice_within_minutes(process: MakeProcess, clock: Clock) -> None:
    running = process()
    assert running.in_use == "scep"
    other = process()
    other.store.prepare()
    other.store.activate("scep-2")

    assert running.in_use == "scep"
    clock.advance(seconds=301)
    assert running.in_use == "scep-2"


def test_who_asked_before_is_answered_by_the_ca_that_it_knows(process: MakeProcess, clock: Clock) -> None:
    one = process()
    client = one.client()
    message = one.request(client)
    one.store.prepare()
    one.store.activate("scep-2")

    # The client's own check of the signature is against the CA that it knows.
    answer = client.read(process().service.pki_operation(message))

    answer.certificate.verify_directly_issued_by(client.ca)
    assert is_trusted(answer.certificate, clock)


def test_who_knows_a_ca_that_is_long_over_has_to_ask_anew(process: MakeProcess, clock: Clock) -> None:
    one = process()
    stale = one.client()
    one.store.prepare()
    one.store.activate("scep-2")
    clock.advance(days=1)

    another = process()
    refused = another.service.pki_operation(another.request(stale))

    # It is the CA in use that refuses.
    answer = replace(stale, ca=another.known.current.identity.certificate).read(refused)
    assert answer.fail_info == BAD_CERT_ID


@pytest.mark.parametrize("knows_the_next", [True, False])
def test_a_process_that_lags_behind_answers_for_the_ca_that_others_have_told_of(
    process: MakeProcess,
    clock: Clock,
    knows_the_next: bool,  # noqa: FBT001 - pytest's parameter
) -> None:
    one, lagging = process(), process()
    one.store.load()
    if knows_the_next:
        one.store.prepare()
        assert lagging.in_use == "scep"
        one.store.activate("scep-2")
    else:
        assert lagging.in_use == "scep"
        one.store.prepare()
        one.store.activate("scep-2")
    ahead = process()
    client = ahead.client()

    answer = client.read(lagging.service.pki_operation(ahead.request(client)))

    answer.certificate.verify_directly_issued_by(ahead.known.current.identity.certificate)


def test_only_one_ca_waits(process: MakeProcess) -> None:
    store = process().store
    store.load()
    first = store.prepare()

    with pytest.raises(ConflictError) as refused:
        store.prepare()
    assert refused.value.code == "ca_next_exists"
    second = store.prepare(replace_next=True)
    assert second.certificate != first.certificate
    assert [item.name for item in CertificateAuthority.query("ca")] == ["scep", "scep-3"]


def test_preparations_at_once_make_one_ca(process: MakeProcess) -> None:
    process().store.load()

    def prepare(store: IssuingAuthorityStore) -> str:
        try:
            return store.prepare().name
        except ConflictError as refused:
            return refused.code

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(prepare, [process().store for _ in range(4)]))

    assert sorted(outcomes) == ["ca_next_exists"] * 3 + ["scep-2"]


def test_the_first_ca_may_be_an_administrators(process: MakeProcess, clock: Clock) -> None:
    identity = new_certificate_authority("Corporation", now=clock())

    assert process().store.install(identity).name == "scep"

    one = process()
    assert one.service.load().certificate == identity.certificate
    client = one.client()
    assert (
        client.read(one.service.pki_operation(one.request(client))).certificate.issuer == identity.certificate.subject
    )


def test_an_administrators_ca_follows_the_one_in_use_and_again_changes_nothing(
    process: MakeProcess, clock: Clock
) -> None:
    store = process().store
    store.load()
    identity = new_certificate_authority("Corporation", now=clock())

    assert [store.install(identity).name for _ in range(2)] == ["scep-2", "scep-2"]
    with pytest.raises(ConflictError):
        store.install(new_certificate_authority("Another", now=clock()))
    store.activate("scep-2")
    assert store.install(identity).name == "scep-2"
    assert process().service.load().certificate == identity.certificate
    assert len(list(CertificateAuthority.query("ca"))) == 2


def test_what_waits_or_is_over_can_be_deleted_and_what_is_in_use_cannot(process: MakeProcess, clock: Clock) -> None:
    store = process().store
    store.load()
    store.prepare()
    with pytest.raises(ConflictError) as refused:
        store.delete("scep")
    assert refused.value.code == "ca_in_use"
    store.delete("scep-2")
    store.delete("scep-2")
    assert phases(clock) == {"scep": Phase.IN_USE}

    store.prepare()
    store.activate("scep-2")
    store.delete("scep")
    assert phases(clock) == {"scep-2": Phase.IN_USE}
    assert store.prepare().name == "scep-3"
    assert process().in_use == "scep-2"


def test_deleting_a_ca_that_came_into_use_meanwhile_is_refused(process: MakeProcess, clock: Clock) -> None:
    store = process().store
    store.load()
    item = store.prepare()
    process().store.activate("scep-2")

    # What somebody decided who saw it wait.
    with pytest.raises(ConflictError) as refused:
        store._delete(item, Phase.NEXT, clock())
    assert refused.value.code == "ca_changed"
    assert process().in_use == "scep-2"
