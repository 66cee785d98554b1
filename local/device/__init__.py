"""A simulated Apple device: enrolls, is woken, does what it is told, and trusts nobody.

It is a program of its own that shares nothing with the server, so that it misses none of the server's mistakes. What
a real device rejects, it rejects (:class:`ProtocolViolation`); what real devices are seen to do, it can be told to do:
both forms of signature, XML and binary plists, no Content-Type, NotNow, lost answers, a profile installed anew.

In a test::

    device = SimulatedDevice(Hardware.iphone(), push=SimulatedApns(apns_control_url), trust=root_pem, observer=show)
    device.enroll("https://127.0.0.1:8443/mdm/enroll/…")
    device.defer()
    with device.listening():
        …
    device.check_out()
    assert not device.violations

As a program (``--help`` lists its habits)::

    python -m local.device --enroll https://127.0.0.1:8443/mdm/enroll/… --trust root.pem --apns http://127.0.0.1:2196

Module by module: :mod:`~local.device.wire` (HTTP), :mod:`~local.device.profile` (what it would install),
:mod:`~local.device.scep` on :mod:`~local.device.cms` and :mod:`~local.device.envelope` (its certificate),
:mod:`~local.device.enrollment` (signed messages), :mod:`~local.device.channel` (commands in, reports out),
:mod:`~local.device.commands` on :mod:`~local.device.information` (what it does), :mod:`~local.device.push` (how it is
woken), and :mod:`~local.device.device`, which holds them together.
"""

from local.device.channel import Channel, Handled
from local.device.cms import Identity, SignatureForm
from local.device.command import Answer, Command
from local.device.device import SimulatedDevice
from local.device.enrollment import MessageForm
from local.device.errors import (
    DeviceError,
    NoAnswer,
    PasswordRejected,
    ProtocolViolation,
    ScepRefused,
    ServerRefused,
    Unenrolled,
    UpdateRequired,
)
from local.device.habits import Habits, Renewal
from local.device.hardware import Hardware, Platform
from local.device.machine_info import MachineInfoForm
from local.device.profile import EnrollmentMode, EnrollmentProfile
from local.device.push import NoPushes, PushService, SimulatedApns
from local.device.scep import ScepDialect
from local.device.web_session import Person
from local.device.wire import Exchange, Observer

__all__ = [
    "Answer",
    "Channel",
    "Command",
    "DeviceError",
    "EnrollmentMode",
    "EnrollmentProfile",
    "Exchange",
    "Habits",
    "Handled",
    "Hardware",
    "Identity",
    "MachineInfoForm",
    "MessageForm",
    "NoAnswer",
    "NoPushes",
    "Observer",
    "PasswordRejected",
    "Person",
    "Platform",
    "ProtocolViolation",
    "PushService",
    "Renewal",
    "ScepDialect",
    "ScepRefused",
    "ServerRefused",
    "SignatureForm",
    "SimulatedApns",
    "SimulatedDevice",
    "Unenrolled",
    "UpdateRequired",
]
