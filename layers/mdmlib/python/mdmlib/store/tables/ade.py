"""Apple Business and School Manager: servers, profiles, lists of devices."""

from pynamodb.attributes import JSONAttribute

from mdmlib.store.attributes import BinaryAttribute, NumberAttribute, UnicodeAttribute
from mdmlib.store.tables import ResourceItem


class AdeServer(ResourceItem, discriminator="ade_server"):
    """Collection ``ade_server``, name = the administrator's name for a server in Apple Business or School Manager."""

    server_uuid = UnicodeAttribute(null=True)
    """Apple's identifier of the server, once it was asked."""
    certificate = BinaryAttribute(null=True, legacy_encoding=False)
    """DER: what Apple was given for this server."""
    private_key = BinaryAttribute(null=True, legacy_encoding=False)
    """PKCS #8 DER, sealed for ``ade_server/<name>``."""
    staged_certificate = BinaryAttribute(null=True, legacy_encoding=False)
    """DER: what Apple is to be given; it takes the other's place when a token for it arrives."""
    staged_private_key = BinaryAttribute(null=True, legacy_encoding=False)
    """PKCS #8 DER, sealed for ``ade_server/<name>/staged``."""
    token = BinaryAttribute(null=True, legacy_encoding=False)
    """Apple's JSON, sealed for ``ade_server/<name>/token``."""
    token_expires_at = NumberAttribute(null=True)
    token_imported_at = NumberAttribute(null=True)
    consumer_hash = UnicodeAttribute(null=True)
    """SHA-256 (hex) of the token's consumer key, which stays when a token is renewed: with another one, it is another
    server of Apple's, and what was defined or fetched before is not there."""
    account: JSONAttribute = JSONAttribute(null=True)
    """What Apple last told of the server and its organization."""
    account_asked_at = NumberAttribute(null=True)
    account_problem: JSONAttribute = JSONAttribute(null=True)
    """Why Apple did not tell when it was last asked: ``{"code", "detail"}``."""
    base_url = UnicodeAttribute(null=True)
    """Where this server is asked for, in place of ADE_URL."""
    created_at = NumberAttribute(null=True)


class AdeProfile(ResourceItem, discriminator="ade_profile"):
    """Collection ``ade_profile``, name = the administrator's: what devices do when they are switched on."""

    document: JSONAttribute = JSONAttribute()
    """What the administrator said, under Apple's keys; what was left out is filled in when Apple is told."""
    changed_at = NumberAttribute()


class AdeProfileDefinition(ResourceItem, discriminator="ade_profile_definition"):
    """Collection ``ade_profile_definition``, name = ``<server>/<profile>``: a profile as Apple knows it at a server."""

    profile_uuid = UnicodeAttribute()
    digest = UnicodeAttribute()
    """SHA-256 (hex) of what Apple was told, and of which server: with another one it has to be told anew."""
    defined_at = NumberAttribute()


class ActivationLock(ResourceItem, discriminator="activation_lock"):
    """Collection ``activation_lock``, name = serial number: what ends the lock that was put on a device from here."""

    bypass_code = BinaryAttribute(legacy_encoding=False)
    """16 bytes, sealed for ``activation_lock/<name>``."""
    server = UnicodeAttribute()
    """The ADE server that Apple was asked by."""
    status = UnicodeAttribute(null=True)
    """Apple's word for what became of it; null: no answer came."""
    created_at = NumberAttribute()
    locked_at = NumberAttribute(null=True)
    unlocked_at = NumberAttribute(null=True)


class AdeDevice(ResourceItem, discriminator="ade_device"):
    """Collections ``ade_device#<server>#<shard>``, name = serial number: a device in Apple's list of a server.

    It stays when it leaves the list: ``deleted_at`` says since when. Written by whoever holds the server's lease.
    """

    record: JSONAttribute = JSONAttribute()
    """All that Apple said of it the last time."""
    model = UnicodeAttribute(null=True)
    device_family = UnicodeAttribute(null=True)
    profile_uuid = UnicodeAttribute(null=True)
    """The profile that Apple gives it at its next activation, as far as is known."""
    profile_status = UnicodeAttribute(null=True)
    op_type = UnicodeAttribute(null=True)
    op_date = UnicodeAttribute(null=True)
    deleted_at = NumberAttribute(null=True)
    fetched_in = NumberAttribute(default=0)
    """The number of the fetch (:class:`AdeSync`) that it was last told of in, or after."""
    added_in = NumberAttribute(null=True)
    """Of one that a fetch found, and no sync told of: that fetch's number."""
    deleted_in = NumberAttribute(null=True)
    """Of one that a fetch did not tell of any more: that fetch's number."""
    rule = UnicodeAttribute(null=True)
    """The rule that decides on its profile."""
    wanted_profile = UnicodeAttribute(null=True)
    """The profile's name, where the rule has one."""
    wanted_uuid = UnicodeAttribute(null=True)
    assignment = UnicodeAttribute(default="none")
    """``none`` (no rule wants any), ``pending``, ``assigned``, or ``other`` (somebody chose another one since)."""
    assigned_at = NumberAttribute(null=True)
    attempts = NumberAttribute(default=0)
    """How often Apple was asked in vain."""
    retry_at = NumberAttribute(null=True)
    """Of one that is pending: not before then."""
    refusal = UnicodeAttribute(null=True)
    """Apple's last word against it: ``THROTTLED``, ``FAILED``, ``NOT_ACCESSIBLE``, or an error's code."""
    first_seen_at = NumberAttribute()
    changed_at = NumberAttribute()


class AdeAssignment(ResourceItem, discriminator="ade_assignment"):
    """Collections ``ade_assignment#<server>``, name = ``<retry_at, 10 digits>#<serial number>``: look at this device.

    No more than a pointer: one whose device is not pending, or pending for another time, is of no use any more.
    """


class AdeSync(ResourceItem, discriminator="ade_sync"):
    """Collection ``ade_sync``, name = the server's: how far Apple's list was read, and who is reading on.

    Each write after the lease was taken is on the condition that ``token`` is still the one that came with it.
    """

    phase = UnicodeAttribute(default="fetch")
    """``fetch`` (all devices) or ``sync`` (what happened to them since)."""
    cursor = UnicodeAttribute(null=True)
    cursor_at = NumberAttribute(default=0)
    """When it was given; of no cursor: when the fetch began."""
    fetch = NumberAttribute(default=1)
    """The number of the fetch; another one begins when Apple knows a cursor no more."""
    walk: JSONAttribute = JSONAttribute(null=True)
    """A look at all devices that is under way: ``{"position": "<shard><serial>", "digest", "absent": bool}``."""
    digest = UnicodeAttribute(null=True)
    """Of the rules that all devices were last held against."""
    token = NumberAttribute(default=0)
    """Counts the leases."""
    lease_until = NumberAttribute(default=0)
    requested_ms = NumberAttribute(default=0)
    """When somebody last asked for it, milliseconds since 1970: a run that began before is followed by another."""
    answered_ms = NumberAttribute(default=0)
    """When the run began that was the last to come to its end, or to fail: who asked before has their answer."""
    started_at = NumberAttribute(null=True)
    finished_at = NumberAttribute(null=True)
    """When the last one came to its end, or failed; null: one is under way, maybe in several runs."""
    synced_at = NumberAttribute(null=True)
    """When the list was last read to its end."""
    error_code = UnicodeAttribute(null=True)
    """Why the last run did not come to its end; null: it did."""
    error = UnicodeAttribute(null=True)
    failed_at = NumberAttribute(null=True)
    counts: JSONAttribute = JSONAttribute(null=True)
    """What the last one has done until now: ``{"pages", "devices", "added", "modified", "deleted", …}``."""


class AdeAssignmentRule(ResourceItem, discriminator="ade_assignment_rule"):
    """Collection ``ade_assignment_rule``, name = the administrator's: which profile some devices get."""

    server = UnicodeAttribute(null=True)
    """The only server whose devices it is for; null: all."""
    serial_numbers: JSONAttribute = JSONAttribute(null=True)
    models: JSONAttribute = JSONAttribute(null=True)
    device_families: JSONAttribute = JSONAttribute(null=True)
    profile = UnicodeAttribute(null=True)
    """The name of a profile here."""
    profile_uuid = UnicodeAttribute(null=True)
    """Or Apple's of one that was defined otherwise; neither: its devices are left as they are."""
    changed_at = NumberAttribute()
