"""Plans: what enrolls gets what its blueprints say, whatever happens on the way."""

import plistlib
import uuid
from typing import Any

import pytest

from local.emulator import Emulator
from local.packages import package
from mdmlib.errors import BadRequestError, ConflictError, NotFoundError
from mdmlib.services.blueprint_content import Conditions, Content
from mdmlib.services.blueprint_plans import Wanted
from mdmlib.services.install_actions import SendCommand
from mdmlib.services.micromdm_users import User
from mdmlib.services.plan_document import Step
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.at_once import at_once
from mdmlib.store.sealing import Sealer
from tests.aws_calls import watch
from tests.deployment import Clock
from tests.fleet import Fleet, FleetDevice
from tests.workflows import Works

MANIFEST = "https://apps.example.org/app.plist"


@pytest.fixture
def works(aws: Emulator, settings: Settings, sealer: Sealer, clock: Clock) -> Works:
    return Works(Fleet(aws, settings, sealer, clock))


def profile(identifier: str, text: str = "text", *, uuid_: str = "UUID-1") -> bytes:
    return plistlib.dumps(
        {
            "PayloadType": "Configuration",
            "PayloadIdentifier": identifier,
            "PayloadUUID": uuid_,
            "PayloadVersion": 1,
            "PayloadDisplayName": text,
            "PayloadContent": [],
        }
    )


def blueprint(works: Works, name: str = "everybody", *, profiles: tuple[str, ...] = ("p.one",), **fields: Any) -> None:
    for identifier in profiles:
        works.profiles.put(identifier, profile(identifier))
    works.blueprints.put(name, Content(profiles=profiles, **fields))


def mac(works: Works, udid: str = "D1", **fields: Any) -> FleetDevice:
    device = FleetDevice(works.fleet, udid)
    device.authenticate(**{"ProductName": "Mac14,2", "OSVersion": "26.1", "SerialNumber": f"C02{udid}", **fields})
    device.token_update()
    works.work()
    return device


class Obedient:
    """Does what it is told, as a device does, and remembers it."""

    def __init__(self, works: Works, device: FleetDevice) -> None:
        self.works, self.device = works, device
        self.done: list[str] = []
        self.profiles: dict[str, str] = {}
        self.apps: dict[str, str] = {}
        self.last: dict[str, Any] = {}
        """The last command."""
        self.fails: dict[str, int] = {}
        """How often it still fails at commands of a request type."""

    def obey(self) -> list[str]:
        """Connect until nothing waits any more; return what was done."""
        begun = len(self.done)
        report: tuple[Any, ...] = ("Idle",)
        fields: dict[str, Any] = {}
        while True:
            command = self.device.command(*report, **fields)
            if command is None:
                self.works.work()
                command = self.device.command("Idle")
                if command is None:
                    return self.done[begun:]
            report, fields = self._do(command)

    def _do(self, command: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        kind, uuid_ = command["Command"]["RequestType"], command["CommandUUID"]
        self.done.append(kind)
        self.last = command["Command"]
        if self.fails.get(kind):
            self.fails[kind] -= 1
            chain = [{"ErrorCode": 7, "ErrorDomain": "D", "USEnglishDescription": "It cannot."}]
            return ("Error", uuid_), {"ErrorChain": chain}
        fields: dict[str, Any] = {}
        if kind == "ProfileList":
            fields["ProfileList"] = [
                {"PayloadIdentifier": name, "PayloadUUID": value} for name, value in self.profiles.items()
            ]
        elif kind == "InstalledApplicationList":
            fields["InstalledApplicationList"] = [
                {"Identifier": name, "ShortVersion": version} for name, version in self.apps.items()
            ]
        elif kind == "InstallProfile":
            installed = plistlib.loads(command["Command"]["Payload"])
            self.profiles[installed["PayloadIdentifier"]] = installed["PayloadUUID"]
        elif kind == "RemoveProfile":
            del self.profiles[command["Command"]["Identifier"]]
        return ("Acknowledged", uuid_), fields


@pytest.mark.parametrize("times", [1, 2])
def test_what_enrolls_gets_what_its_blueprints_say_also_when_everything_is_heard_twice(
    works: Works, times: int
) -> None:
    blueprint(works, profiles=("p.one", "p.two"), apps=[{"manifest_url": MANIFEST}], commands=[RESTART])
    device = FleetDevice(works.fleet, "D1")
    device.authenticate(ProductName="Mac14,2", OSVersion="26.1")
    device.token_update()
    works.work(times=times)
    obedient = Obedient(works, device)

    assert obedient.obey() == [
        "ProfileList",
        "InstalledApplicationList",
        "InstallProfile",
        "InstallProfile",
        "InstallApplication",
        "RestartDevice",
    ]
    assert works.plan(device).state == "done"
    assert works.steps(device)["let Setup Assistant go on"] == "unneeded"
    (finished,) = works.topics("mdm.PlanFinished")
    assert finished["plan_event"]["state"] == "done"
    assert (finished["plan_event"]["cause"], finished["plan_event"]["done"]) == ("enrollment", 6)
    assert obedient.obey() == []


RESTART = {"request_type": "RestartDevice", "notify_user": True}


def test_only_what_differs_is_sent(works: Works) -> None:
    blueprint(works, profiles=("p.one", "p.two"))
    device = mac(works)
    obedient = Obedient(works, device)
    obedient.profiles = {"p.two": "UUID-1"}

    assert obedient.obey() == ["ProfileList", "InstallProfile"]
    assert list(obedient.profiles) == ["p.two", "p.one"]
    assert works.steps(device)["profile p.two"] == "unneeded"

    works.profiles.put("p.one", profile("p.one", "another"))
    works.blueprint_plans.apply("D1", Wanted(("everybody",)), run="r2", cause="request")
    assert obedient.obey() == ["ProfileList", "InstallProfile"]
    works.blueprint_plans.apply("D1", Wanted(("everybody",), again=True), run="r3", cause="request")
    assert obedient.obey() == ["InstallProfile", "InstallProfile"]


def test_in_setup_assistant_accounts_come_first_and_the_device_is_let_go_last_although_a_step_fails(
    works: Works,
) -> None:
    hashed = plistlib.dumps({"SALTED-SHA512-PBKDF2": {"entropy": b"e", "salt": b"s", "iterations": 30_000}})
    admin = works.users.put(User(user_shortname="admin", user_longname="Admin", password_hash=hashed, hidden=True))
    blueprint(works, users=[admin.uuid], skip_primary_setup_account_creation=True, apps=[{"itunes_store_id": 1}])
    device = FleetDevice(works.fleet, "D1")
    device.authenticate(ProductName="Mac14,2", OSVersion="26.1")
    device.token_update(AwaitingConfiguration=True)
    works.work()
    obedient = Obedient(works, device)
    obedient.fails = {"InstallApplication": 3}

    account = device.command("Idle")
    assert account is not None
    assert account["Command"] == {
        "RequestType": "AccountConfiguration",
        "SkipPrimarySetupAccountCreation": True,
        "SetPrimarySetupAccountAsRegularUser": False,
        "AutoSetupAdminAccounts": [{"shortName": "admin", "fullName": "Admin", "passwordHash": hashed, "hidden": True}],
    }
    assert obedient.obey() == [
        "AccountConfiguration",
        "ProfileList",
        "InstalledApplicationList",
        "InstallProfile",
        "InstallApplication",
    ]
    assert works.steps(device)["app 1"] == "waiting"
    for seconds in (5, 20):
        works.fleet.clock.advance(seconds=seconds)
        works.plans.resume("D1", "blueprints", works.plan(device).item.run)
        assert obedient.obey()[:1] == ["InstallApplication"]

    assert obedient.done[-1] == "DeviceConfigured"
    plan = works.plan(device)
    assert plan.state == "failed"
    failed = next(step for step in plan.document.steps if step.title == "app 1")
    assert failed.reason == "Error: It cannot. (7)."
    (finished,) = works.topics("mdm.PlanFinished")
    assert finished["plan_event"]["failures"] == [{"step": "app 1", "reason": "Error: It cannot. (7)."}]


def test_a_step_that_failed_is_tried_again_after_a_while(works: Works) -> None:
    blueprint(works)
    device = mac(works)
    obedient = Obedient(works, device)
    obedient.fails = {"InstallProfile": 1}

    obedient.obey()
    assert works.steps(device)["profile p.one"] == "waiting"
    # The message came too early: it is put back until its time has come.
    assert obedient.obey() == []
    works.fleet.clock.advance(minutes=1)
    works.plans.resume("D1", "blueprints", works.plan(device).item.run)

    assert obedient.obey() == ["InstallProfile"]
    assert works.plan(device).state == "done"


def test_a_device_that_defers_keeps_its_plan_waiting(works: Works) -> None:
    blueprint(works)
    device = mac(works)
    first = device.idle()
    assert first is not None
    device.not_now(first)
    works.work()

    assert works.steps(device)["list profiles"] == "queued"
    assert Obedient(works, device).obey() == ["ProfileList", "InstallProfile"]


def test_a_device_that_enrolls_anew_begins_anew(works: Works) -> None:
    blueprint(works)
    device = mac(works)
    before = works.plan(device).item.run
    stale = device.idle()
    assert stale is not None

    device.authenticate(ProductName="Mac14,2", OSVersion="26.1", DeviceName="again")
    assert works.plan(device).state == "ended"
    device.token_update()
    works.work()
    # What it reports on a command of its former life changes nothing.
    works.plans.take_result("D1", stale)

    assert works.plan(device).item.run != before
    assert Obedient(works, device).obey() == ["ProfileList", "InstallProfile"]


def test_a_plan_whose_queue_is_cleared_sends_nothing_more(works: Works) -> None:
    blueprint(works)
    device = mac(works)
    works.fleet.queues.clear(["D1"])

    def reasons() -> dict[str, tuple[str, str | None]]:
        steps = works.plan(device).document.steps
        return {step.title: (step.state.value, step.reason) for step in steps if step.action != "release"}

    seen = {
        "list profiles": ("failed", "An administrator cleared the queue that its command was in."),
        "profile p.one": ("failed", "An administrator cleared the queue before its turn came."),
    }
    assert reasons() == seen
    works.fleet.sweep()
    works.work(times=2)

    assert works.plan(device).state == "failed"
    assert reasons() == seen
    assert len(works.topics("mdm.PlanFinished")) == 1
    assert device.idle() is None


def test_a_device_whose_queue_is_cleared_in_setup_assistant_is_let_go(works: Works) -> None:
    blueprint(works)
    device = FleetDevice(works.fleet, "D1")
    device.authenticate(ProductName="Mac14,2", OSVersion="26.1")
    device.token_update(AwaitingConfiguration=True)
    works.work()
    works.fleet.queues.clear(["D1"])
    works.fleet.sweep()
    works.work()

    assert Obedient(works, device).obey() == ["DeviceConfigured"]


def test_a_plan_goes_on_without_a_command_that_was_taken_back(works: Works) -> None:
    blueprint(works)
    device = mac(works)
    command = device.idle()
    assert command is not None
    works.fleet.queues.cancel("D1", command)
    works.work(times=2)

    (looked,) = [step for step in works.plan(device).document.steps if step.title == "list profiles"]
    assert (looked.state, looked.reason) == ("failed", "An administrator took its command back.")
    assert Obedient(works, device).obey() == ["InstallProfile"]


def step(works: Works, device: FleetDevice, title: str) -> Step:
    return next(step for step in works.plan(device).document.steps if step.title == title)


@pytest.mark.parametrize("times", [1, 2])
def test_a_command_that_is_not_answered_for_its_whole_life_is_sent_again_and_then_given_up(
    works: Works, times: int
) -> None:
    blueprint(works, profiles=("p.one", "p.two"))
    device = mac(works)
    first = device.idle()
    sent = {first}
    for attempts in (2, 3):
        works.fleet.clock.advance(days=180)
        assert works.look_after(times=times) == 1
        assert step(works, device, "list profiles").attempts == attempts
        sent.add(device.idle())
    assert len(sent) == 3
    works.fleet.clock.advance(days=180)
    works.look_after(times=times)

    looked = step(works, device, "list profiles")
    assert looked.state == "failed"
    assert looked.reason is not None
    assert looked.reason.startswith("It was sent 3 times and not answered, at last for 180 days: when the device conn")
    # The rest goes on, and what a device says of a command that was sent again changes nothing.
    works.plans.take_result("D1", str(first))
    assert Obedient(works, device).obey() == ["InstallProfile", "InstallProfile"]
    assert works.plan(device).state == "failed"


def test_a_command_that_was_shared_has_a_whole_life_when_it_is_sent_much_later(works: Works) -> None:
    early, late = mac(works, "D1"), mac(works, "D2")
    blueprint(works)
    works.jobs.start(Wanted(("everybody",)), ids=["D1", "D2"])
    works.work()
    first = Obedient(works, early)
    first.fails = {"ProfileList": 1}
    first.obey()
    works.fleet.clock.advance(minutes=1)
    works.plans.resume("D1", "blueprints", works.plan(early).item.run)
    works.fleet.clock.advance(days=179)
    second = Obedient(works, late)
    second.fails = {"ProfileList": 1}
    second.obey()
    works.fleet.clock.advance(days=2)
    works.plans.resume("D2", "blueprints", works.plan(late).item.run)

    assert early.idle() is None
    works.fleet.clock.advance(days=100)
    assert late.idle() is not None


class Ended(BaseException):
    """A function ends, whatever it is doing."""


class EndsOnce:
    """A function that ends behind one of its writes or messages, and is given the same message again."""

    def __init__(self, works: Works) -> None:
        self._receive = works.workflow.receive
        self._left: int | None = None
        self._is_at_work = False
        self.ended = 0
        for client in (tables.dynamodb_client(), works.fleet.emulator.sqs, works.fleet.emulator.events):
            watch(client, after=self._count)

    def receive(self, body: str) -> None:
        try:
            self._is_at_work = True
            self._receive(body)
        except Ended:
            self.ended += 1
            self._receive(body)
        finally:
            self._is_at_work = False

    def end_behind(self, number: int) -> None:
        self._left = number

    def _count(self, operation: str, _: object) -> None:
        reads = ("BatchGetItem", "GetItem", "Query", "ReceiveMessage", "DeleteMessage")
        if not self._is_at_work or self._left is None or operation in reads:
            return
        self._left -= 1
        if self._left == 0:
            self._left = None
            raise Ended


def test_a_function_that_moves_plans_may_end_between_any_two_calls(works: Works) -> None:
    blueprint(works, profiles=("p.one", "p.two"), apply_on_enrollment=False)
    device = mac(works)
    obedient = Obedient(works, device)
    ends = EndsOnce(works)
    works.workflow = ends  # type: ignore[assignment]
    number = 1
    while ends.ended == number - 1:
        obedient.profiles = {}
        works.jobs.start(Wanted(("everybody",)), ids=["D1"])
        ends.end_behind(number)
        works.work()
        assert obedient.obey() == ["ProfileList", "InstallProfile", "InstallProfile"], number
        assert works.plan(device).state == "done", number
        number += 1

    # It begins: a command, the transaction, the event, the job's page. The next phase: two commands, the transaction,
    # the event. The end: the transaction, the event, its place in the outbox.
    assert ends.ended == 11
    # What was left in the outbox is published by the clock.
    works.fleet.clock.advance(minutes=2)
    works.fleet.housekeeping.publish_leftovers()
    runs = {finished["plan_event"]["run"] for finished in works.topics("mdm.PlanFinished")}
    ids = {finished["event_id"] for finished in works.topics("mdm.PlanFinished")}
    assert len(ids) == len(runs) == number - 1


def test_of_many_who_look_at_a_plan_at_once_one_sends_its_command_again(works: Works) -> None:
    blueprint(works)
    device = mac(works)
    works.fleet.clock.advance(days=180)
    version = works.plan(device).item.version

    at_once(lambda _: works.plans.look_after("D1", "blueprints"), list(range(6)))
    assert works.plan(device).item.version == version + 1
    command = device.idle()
    assert command is not None
    assert device.acknowledge(command, ProfileList=[]) is None

    # Those who note the last answers of a phase at once are as many.
    works.work()
    commands = {device.idle()}
    assert len(commands) == 1
    (last,) = commands
    assert device.acknowledge(str(last)) is None
    at_once(lambda _: works.plans.take_result("D1", str(last)), list(range(6)))
    assert len(works.topics("mdm.PlanFinished")) == 1


def test_a_plan_whose_message_was_lost_is_found_and_goes_on(works: Works) -> None:
    blueprint(works)
    device = mac(works)
    obedient = Obedient(works, device)
    command = device.command("Idle")
    assert command is not None
    report, fields = obedient._do(command)
    device.command(*report, **fields)
    works.messages()

    assert works.look_after() == 0
    works.fleet.clock.advance(hours=1)
    assert works.look_after(times=2) == 1
    assert obedient.obey() == ["InstallProfile"]


def test_a_delay_whose_message_was_lost_ends(works: Works) -> None:
    blueprint(works)
    device = mac(works)
    obedient = Obedient(works, device)
    obedient.fails = {"InstallProfile": 1}
    obedient.obey()
    works.messages()
    works.fleet.clock.advance(hours=1)

    assert works.look_after(times=2) == 1
    assert obedient.obey() == ["InstallProfile"]


def test_a_plan_of_a_silent_device_is_looked_at_less_and_less_often(works: Works) -> None:
    blueprint(works)
    mac(works)
    for hours in (1, 1, 2, 4):
        works.fleet.clock.advance(hours=hours, minutes=-1)
        assert works.look_after() == 0
        works.fleet.clock.advance(minutes=1)
        assert works.look_after() == 1


def test_what_was_done_while_another_command_is_deferred_is_noted_before_its_result_goes(works: Works) -> None:
    blueprint(works, profiles=(), commands=[RESTART, {"request_type": "ShutDownDevice"}])
    device = mac(works)
    done = device.idle()
    assert done is not None
    deferred = device.acknowledge(done)
    assert deferred is not None
    device.not_now(deferred)
    works.work()
    works.fleet.clock.advance(hours=1)
    works.look_after()
    tables.CommandResult("D1", f"r#{done}").delete()

    device.acknowledge(deferred)
    works.work()
    assert works.plan(device).state == "done"


def test_nobody_looks_after_a_plan_that_has_ended_with_its_enrollment(works: Works) -> None:
    blueprint(works)
    mac(works).check_out()
    works.fleet.clock.advance(hours=1)

    assert works.look_after(times=2) == 1
    works.fleet.clock.advance(days=30)
    assert works.look_after() == 0
    assert works.plan_list.unsettled(failed=False, limit=10, after="") == ([], None)


def test_a_command_that_was_taken_back_unheard_is_noticed(works: Works) -> None:
    blueprint(works)
    device = mac(works)
    command = device.idle()
    assert command is not None
    works.fleet.queues.cancel("D1", command)
    works.messages()
    works.fleet.clock.advance(hours=1)
    works.look_after()

    assert step(works, device, "list profiles").reason == "An administrator took its command back."
    assert Obedient(works, device).obey() == ["InstallProfile"]


def test_what_a_device_has_done_is_told_before_its_plan_notes_it_with_the_last_of_a_phase(works: Works) -> None:
    blueprint(works, profiles=("p.one", "p.two", "p.three"))
    device = mac(works)
    first = device.idle()
    assert first is not None
    device.acknowledge(first, ProfileList=[])
    works.work()
    deferred = device.idle()
    assert deferred is not None
    second = device.not_now(deferred)
    assert second is not None
    version = works.plan(device).item.version
    assert device.acknowledge(second) == deferred
    third = device.not_now(deferred)
    assert third is not None
    works.work(times=2)
    seen = [state for title, state in works.steps(device).items() if title.startswith("profile ")]
    assert seen == ["queued", "done", "queued"]
    assert works.plan(device).item.version == version

    device.acknowledge(third)
    works.work(times=2)
    assert works.plan(device).item.version == version + 1
    device.acknowledge(deferred)
    works.work(times=2)
    assert works.plan(device).state == "done"


def test_what_is_answered_while_a_plan_is_being_moved_is_not_overlooked(works: Works) -> None:
    class Meanwhile(SendCommand):
        """While somebody notes what this command came to, the device answers the one that it has deferred."""

        def learn(self, *told: Any) -> None:
            super().learn(*told)
            if (answered := device.idle()) is not None:
                device.acknowledge(answered)
                for message in works.messages():
                    works.workflow.receive(message)

    works.actions["send_command"] = Meanwhile()
    blueprint(works, profiles=(), commands=[RESTART, {"request_type": "ShutDownDevice"}])
    device = mac(works)
    deferred = device.idle()
    assert deferred is not None
    last = device.not_now(deferred)
    assert last is not None
    device.acknowledge(last)
    works.work()

    assert works.plan(device).state == "done"


def test_a_plan_that_takes_the_place_of_another_knows_what_the_device_has_done_of_that(works: Works) -> None:
    blueprint(works, profiles=(), commands=[RESTART, {"request_type": "ShutDownDevice"}])
    device = mac(works)
    restart = device.idle()
    assert restart is not None
    device.acknowledge(restart)
    works.work()
    works.blueprint_plans.apply("D1", Wanted(("everybody",)), run="r2", cause="request")

    assert next(iter(works.steps(device).values())) == "unneeded"


def test_a_device_gets_its_own_values_in_profiles(works: Works) -> None:
    works.profiles.put("p.var", profile("p.var", "{{serial_number}} of {{ values.owner }}"))
    works.blueprints.put("mine", Content(profiles=("p.var",)))
    works.attributes.put("C02D1", tags=["lab"], values={"owner": "Ada & Co"})
    mine, theirs = mac(works, "D1"), mac(works, "D2")
    obedient = Obedient(works, mine)

    obedient.obey()
    Obedient(works, theirs).obey()

    assert obedient.done == ["ProfileList", "InstallProfile"]
    assert obedient.profiles["p.var"] != "UUID-1"
    failed = next(step for step in works.plan(theirs).document.steps if step.title == "profile p.var")
    assert (failed.state, failed.reason) == ("failed", "The device has no value for {{values.owner}}.")
    # Named by an administrator, it is said before anything is done.
    with pytest.raises(ConflictError, match=r"values\.owner"):
        works.jobs.start(Wanted(("mine",)), ids=["D2"])


def test_conditions_choose_devices(works: Works) -> None:
    works.attributes.put("C02D1", tags=["lab"], values={})
    works.ade_servers = {"C02D1": "school"}
    suits = {
        "type": Conditions(types=["Device"]),
        "platform": Conditions(platforms=["macOS"]),
        "model": Conditions(models=["Mac14,*", "iPad*"]),
        "version": Conditions(os_at_least="26.1", os_below="27"),
        "serial": Conditions(serial_numbers=["C02D1"]),
        "tag": Conditions(tags=["lab"]),
        "server": Conditions(ade_servers=["school"]),
    }
    does_not = {
        "a": Conditions(types=["User Enrollment (Device)"]),
        "b": Conditions(platforms=["iOS"]),
        "c": Conditions(models=["Mac15,*"]),
        "d": Conditions(os_at_least="26.2"),
        "e": Conditions(os_below="26.1"),
        "f": Conditions(serial_numbers=["C02D2"]),
        "g": Conditions(tags=["lab", "loan"]),
        "h": Conditions(ade_servers=["work"]),
    }
    for name, conditions in (suits | does_not).items():
        blueprint(works, name, conditions=conditions)

    device = mac(works)

    assert sorted(works.plan(device).document.blueprints) == sorted(suits)


def test_who_has_no_blueprint_has_no_plan(works: Works) -> None:
    blueprint(works, conditions=Conditions(platforms=["iOS"]))
    blueprint(works, "later", apply_on_enrollment=False)
    device = mac(works)

    assert device.idle() is None
    assert works.plan_list.of_enrollment("D1") == []
    assert works.topics("mdm.PlanFinished") == []


def test_what_left_a_blueprint_is_removed_when_that_is_asked_for(works: Works) -> None:
    blueprint(works, profiles=("p.one", "p.two", "p.three"))
    blueprint(works, "other", profiles=("p.three",))
    device = mac(works)
    obedient = Obedient(works, device)
    obedient.obey()

    blueprint(works, profiles=("p.one",))
    works.blueprint_plans.apply("D1", Wanted(("everybody",)), run="r2", cause="request")
    assert obedient.obey() == ["ProfileList"]
    works.blueprint_plans.apply("D1", Wanted(("everybody",), remove=True), run="r3", cause="request")
    assert obedient.obey() == ["ProfileList", "RemoveProfile"]
    # Another blueprint says that it shall have this one.
    assert sorted(obedient.profiles) == ["p.one", "p.three"]

    works.blueprints.delete(["other"])
    works.blueprint_plans.apply("D1", Wanted(None, remove=True), run="r4", cause="request")
    assert obedient.obey() == ["ProfileList", "RemoveProfile"]
    assert sorted(obedient.profiles) == ["p.one"]


def test_a_change_reaches_all_devices_that_it_is_for_page_by_page(works: Works) -> None:
    devices = [mac(works, f"D{number}") for number in range(1, 9)]
    FleetDevice(works.fleet, "PHONE").authenticate(ProductName="iPhone15,2")
    conditions = Conditions(platforms=["macOS"])
    blueprint(works, apply_on_change=True, conditions=conditions)
    blueprint(works, "whole", profiles=(), includes=("everybody",), apply_on_change=True, conditions=conditions)
    changed = works.blueprints.put("everybody", Content(profiles=("p.one",), apply_on_change=True))
    works.jobs.on_change(changed)
    works.jobs.on_change(changed)
    works.work()

    assert {tuple(sorted(works.plan(device).document.blueprints)) for device in devices} == {("everybody", "whole")}
    # Each of the two jobs asks; what the first has queued by then is not sent by the other.
    assert {tuple(Obedient(works, device).obey()) for device in devices} == {
        ("ProfileList", "ProfileList", "InstallProfile")
    }


def test_a_job_whose_message_was_lost_goes_on(works: Works) -> None:
    devices = [mac(works, f"D{number}") for number in range(1, 6)]
    blueprint(works)
    job = works.jobs.start(Wanted(("everybody",)), ids=[str(device) for device in devices])
    (first,) = works.messages()
    works.workflow.receive(first)
    works.messages()

    works.fleet.clock.advance(minutes=59)
    works.look_after()
    assert works.jobs.get(job.name).state == "running"
    works.fleet.clock.advance(minutes=1)
    works.look_after()
    done = works.jobs.get(job.name)
    assert (done.state, done.begun) == ("done", 5)


def test_a_job_that_is_done_again_does_not_undo_what_was_asked_for_meanwhile(works: Works) -> None:
    device = mac(works)
    blueprint(works)
    wanted = Wanted(("everybody",), again=True)
    runs = []
    for _ in range(3):
        runs.append(works.jobs.start(wanted, ids=[str(device)]).name)
        works.work()
        Obedient(works, device).obey()

    # The functions that did the former ones died before they noted it.
    for run in runs[:2]:
        assert works.blueprint_plans.apply(str(device), wanted, run=run, cause="request")
    plan = works.plan(device)
    assert (plan.item.run, plan.state) == (runs[2], "done")
    assert device.idle() is None


def test_a_run_that_nobody_remembers_begins_again_with_commands_of_its_own(works: Works) -> None:
    device = mac(works)
    blueprint(works)
    wanted = Wanted(("everybody",), again=True)
    runs = []
    for _ in range(2):
        runs.append(works.jobs.start(wanted, ids=[str(device)]).name)
        works.work()
        Obedient(works, device).obey()
    works.plan(device).item.update([tables.Plan.former_runs.remove()])

    works.blueprint_plans.apply(str(device), wanted, run=runs[0], cause="request")
    works.work()
    assert Obedient(works, device).obey()
    plan = works.plan(device)
    assert (plan.item.run, plan.state) == (runs[0], "done")


def test_devices_share_the_commands_of_a_job(works: Works) -> None:
    devices = [mac(works, f"D{number}") for number in range(1, 5)]
    blueprint(works)
    job = works.jobs.start(Wanted(("everybody",)), ids=[str(device) for device in devices])
    works.work()

    assert len({device.idle() for device in devices}) == 1
    done = works.jobs.get(job.name)
    assert (done.state, done.examined, done.begun) == ("done", 4, 4)


def test_a_new_version_of_an_app_reaches_the_devices_of_its_blueprints(works: Works) -> None:
    works.apps.store("munki.pkg", package())
    blueprint(works, profiles=(), apps=[{"app": "munki.pkg"}], apply_on_change=True)
    blueprint(works, "other", profiles=(), apps=[{"manifest_url": MANIFEST}], apply_on_change=True)
    device = mac(works)
    obedient = Obedient(works, device)
    obedient.obey()

    works.apps.store("munki.pkg", package())
    works.work()
    assert works.plan(device).document.blueprints == ["everybody"]
    assert obedient.obey() == ["InstalledApplicationList", "InstallApplication"]


def test_tags_and_values_bring_a_device_to_what_they_concern(works: Works) -> None:
    device = mac(works)
    works.profiles.put("p.var", profile("p.var", "{{values.owner}}"))
    works.blueprints.put("lab", Content(profiles=("p.var",), conditions=Conditions(tags=["lab"]), apply_on_change=True))
    blueprint(works, "never", conditions=Conditions(tags=["lab"]))
    obedient = Obedient(works, device)
    works.attributes.put("C02D1", tags=["loan"], values={"owner": "Ada"})
    works.attributes.put("nobody's", tags=["lab"], values={"owner": "Ada"})
    works.work()
    assert obedient.obey() == []

    works.attributes.put("C02D1", tags=["lab"], values={"owner": "Ada"})
    works.work()
    assert obedient.obey() == ["ProfileList", "InstallProfile"]
    works.attributes.put("C02D1", tags=["lab"], values={"owner": "Grace"})
    works.work()
    assert obedient.obey() == ["ProfileList", "InstallProfile"]
    assert plistlib.loads(obedient.last["Payload"])["PayloadDisplayName"] == "Grace"


def test_what_has_gone_since_a_blueprint_was_stored_is_named_before_anything_is_applied(works: Works) -> None:
    blueprint(works, "base", profiles=("p.one", "p.two"))
    works.blueprints.put("whole", Content(includes=("base",)))
    mac(works)
    works.profiles.delete(["p.two"])

    with pytest.raises(BadRequestError, match=r"base: There is no profile p\.two"):
        works.jobs.start(Wanted(("whole",)), ids=["D1"])
    with pytest.raises(BadRequestError, match=r"p\.two"):
        works.jobs.preview(Wanted(("whole",)), ["D1"])


def test_blueprints_that_include_each_other_or_nothing_stop_no_device(works: Works) -> None:
    # Two administrators at once: each of their blueprints was right when it was looked at.
    blueprint(works, "a", includes=())
    blueprint(works, "b", includes=("a",))
    item = tables.Blueprint.get("blueprint", "a")
    circle = Content(profiles=("p.one",), includes=("b", "gone"))
    item.document = works.fleet.sealer.seal(circle.encode(), place="blueprint/a")
    item.save()

    assert Obedient(works, mac(works)).obey() == ["ProfileList", "InstallProfile"]


def test_a_blueprint_has_no_more_with_all_that_it_includes_than_a_device_takes(works: Works) -> None:
    urls = [{"manifest_url": f"https://a.example.org/{number}"} for number in range(100)]
    commands = [{"request_type": "RemoveProfile", "identifier": str(number)} for number in range(100)]
    works.blueprints.put("a", Content(apps=urls, commands=commands))
    works.blueprints.put("b", Content(apps=urls, includes=["a"]))

    with pytest.raises(BadRequestError, match="has 400 profiles, apps and commands") as refused:
        works.blueprints.put("c", Content(apps=urls, includes=["b"]))
    assert refused.value.code == "too_many_steps"


def test_attributes_of_a_fleet_are_listed_page_by_page(works: Works) -> None:
    for number in range(25):
        works.attributes.put(f"C02{number:02}", tags=["even"] if number % 2 == 0 else [], values={})
    listed: list[str] = []
    after: str | None = ""
    while after is not None:
        page = works.attributes.list(tag="even", limit=4, after=after)
        assert len(page.entries) <= 4
        listed += [one.serial_number for one in page.entries]
        after = page.next_cursor

    assert listed == [f"C02{number:02}" for number in range(0, 25, 2)]


def test_an_uploaded_app_is_installed_where_the_device_has_another_version_and_removed_by_its_bundle(
    works: Works,
) -> None:
    works.apps.store("munki.pkg", package())
    blueprint(works, profiles=(), apps=[{"app": "munki.pkg"}])
    device = mac(works)
    obedient = Obedient(works, device)

    assert obedient.obey() == ["InstalledApplicationList", "InstallApplication"]
    assert obedient.last["ManifestURL"] == "https://mdm.example.org/repo/munki.plist"
    for version, expected in (("5.1", 2), ("5.2", 1)):
        obedient.apps = {"com.example.ManagedSoftwareCenter": version}
        works.blueprint_plans.apply("D1", Wanted(("everybody",)), run=version, cause="request")
        assert len(obedient.obey()) == expected

    blueprint(works, profiles=())
    works.blueprint_plans.apply("D1", Wanted(("everybody",), remove=True), run="r3", cause="request")
    assert obedient.obey() == ["InstalledApplicationList", "RemoveApplication"]
    assert obedient.last["Identifier"] == "com.example.ManagedSoftwareCenter"


def test_a_new_plan_goes_on_with_what_the_former_has_not_done(works: Works) -> None:
    blueprint(works, "first", profiles=("p.one",))
    device = mac(works)
    blueprint(works, "second", profiles=("p.two",), apply_on_enrollment=False)
    works.blueprint_plans.apply("D1", Wanted(("second",)), run="r2", cause="request")

    assert works.plan(device).document.blueprints == ["first", "second"]
    assert Obedient(works, device).obey() == ["ProfileList", "ProfileList", "InstallProfile", "InstallProfile"]


def test_a_long_blueprint_is_sent_in_parts(works: Works) -> None:
    names = tuple(f"p.{number:03}" for number in range(50))
    blueprint(works, profiles=names)
    device = mac(works)
    obedient = Obedient(works, device)

    assert obedient.obey() == ["ProfileList", *["InstallProfile"] * 50]
    assert tuple(obedient.profiles) == names


def test_devices_of_a_blueprint_get_its_ade_profile_before_they_enroll(works: Works) -> None:
    works.ade_names = {"pupils", "teachers", "north", "south"}

    def rules() -> list[tuple[str | None, list[str] | None, list[str] | None, str | None]]:
        return [
            (rule.server, rule.serial_numbers, rule.device_families, rule.profile) for rule in works.ade_rules.list()
        ]

    works.blueprints.put("a", Content(ade_profile="pupils"))
    assert rules() == [(None, None, None, "pupils")]
    assert works.lists_read == [None]
    works.blueprints.put("a", Content(ade_profile="pupils"))
    assert works.lists_read == [None]
    works.blueprints.put(
        "a", Content(ade_profile="teachers", conditions=Conditions(ade_servers=["south", "north"], platforms=["iOS"]))
    )
    assert rules() == [("north", None, ["iPhone", "iPod"], "teachers"), ("south", None, ["iPhone", "iPod"], "teachers")]
    works.blueprints.put(
        "a",
        Content(
            ade_profile="teachers",
            conditions=Conditions(ade_servers=["north"], platforms=["iOS"], serial_numbers=["C02XX2", "C02XX1"]),
        ),
    )
    assert rules() == [("north", ["C02XX1", "C02XX2"], None, "teachers")]
    assert works.lists_read[2:] == ["north", "south"]
    works.blueprints.put("b", Content(ade_profile="pupils"))
    works.blueprints.delete(["a"])
    assert rules() == [(None, None, None, "pupils")]
    works.blueprints.put("b", Content())
    assert rules() == []


@pytest.mark.parametrize(
    ("content", "code", "field"),
    [
        (Content(profiles=["nowhere"]), "names_what_is_not_there", "profiles"),
        (Content(users=[str(uuid.uuid4())]), "names_what_is_not_there", "users"),
        (Content(apps=[{"app": "nowhere"}]), "names_what_is_not_there", "apps"),
        (Content(includes=["nowhere"]), "names_what_is_not_there", "includes"),
        (Content(ade_profile="nowhere"), "names_what_is_not_there", "ade_profile"),
        (Content(ade_profile="pupils", conditions=Conditions(tags=["lab"])), "known_too_late", "conditions.tags"),
        (
            Content(ade_profile="pupils", conditions=Conditions(platforms=["watchOS"])),
            "known_too_late",
            "conditions.platforms",
        ),
        (
            Content(ade_profile="pupils", conditions=Conditions(ade_servers=["no"])),
            "names_what_is_not_there",
            "conditions.ade_servers",
        ),
        (Content(includes=["b"]), "depends_on_itself", "includes"),
        (Content(includes=["a"]), "depends_on_itself", "includes"),
        (Content(profiles=["p.one", "p.one"]), "named_twice", "profiles"),
        (Content(profiles=["p.odd"]), "unknown_variable", "profiles"),
        (Content(apps=[{"manifest_url": "http://x"}]), "invalid_field", "apps[0].manifest_url"),
        (Content(apps=[{}]), "invalid_field", "apps[0]"),
        (Content(commands=[{"request_type": "Nothing"}]), "unknown_request_type", "commands[0].request_type"),
        (Content(conditions=Conditions(types=["User"])), "invalid_field", "conditions.types"),
        (Content(conditions=Conditions(os_below="x")), "invalid_field", "conditions.os_below"),
    ],
)
def test_what_is_wrong_with_a_blueprint_is_said_before_it_is_stored(
    works: Works, content: Content, code: str, field: str
) -> None:
    works.profiles.put("p.one", profile("p.one"))
    works.profiles.put("p.odd", profile("p.odd", "{{phone}}"))
    works.ade_names = {"pupils"}
    works.blueprints.put("b", Content())
    works.blueprints.put("a", Content())
    works.blueprints.put("b", Content(includes=["a"]))

    with pytest.raises(BadRequestError) as refused:
        works.blueprints.put("a", content)
    assert (refused.value.code, refused.value.field) == (code, field)
    assert works.blueprints.get("a").content == Content.decode(Content().encode())


def test_a_blueprint_that_another_includes_is_not_forgotten(works: Works) -> None:
    works.blueprints.put("a", Content())
    works.blueprints.put("b", Content(includes=["a"]))

    with pytest.raises(ConflictError):
        works.blueprints.delete(["a"])
    works.blueprints.delete(["a", "b", "nowhere"])
    assert list(works.blueprints.list()) == []


def test_plans_that_run_or_have_failed_are_found_among_all(works: Works) -> None:
    blueprint(works)
    devices = [mac(works, f"D{number}") for number in range(1, 6)]
    obedient = Obedient(works, devices[0])
    obedient.obey()
    broken = Obedient(works, devices[1])
    works.blueprints.put("lost", Content(profiles=("p.one",)))
    works.profiles.delete(["p.one"])
    broken.obey()

    assert {plan.enrollment_id for plan in works.plan_list.unsettled(failed=True, limit=10, after="")[0]} == {"D2"}
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page, after = works.plan_list.unsettled(failed=False, limit=2, after=after)
        found += [plan.enrollment_id for plan in page]
    assert sorted(found) == ["D3", "D4", "D5"]


def test_plans_are_for_devices_that_are_there(works: Works) -> None:
    blueprint(works)
    device = mac(works)
    user = device.user()
    user.token_update(UserShortName="ada")

    with pytest.raises(NotFoundError):
        works.blueprint_plans.apply("nobody", Wanted(("everybody",)), run="r", cause="request")
    with pytest.raises(ConflictError, match="user"):
        works.blueprint_plans.apply(str(user), Wanted(("everybody",)), run="r", cause="request")
    device.check_out()
    with pytest.raises(ConflictError, match="ended"):
        works.blueprint_plans.apply("D1", Wanted(("everybody",)), run="r", cause="request")
    with pytest.raises(NotFoundError):
        works.plan_list.of_enrollment("nobody")
