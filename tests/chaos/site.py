"""Where faults are played: a deployed stack whose functions reach AWS through proxies, and those who live with it."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Any, Final, TypeVar

import httpx

from local.administrator import Administrator
from local.aws_proxy import AwsProxy, Disturbance
from local.device import Hardware, NoAnswer, ServerRefused, SimulatedApns, SimulatedDevice
from local.life import World
from local.stack import Stack
from tests.chaos.ledger import Ledger

_ATTEMPTS: Final = 3
_VISIBILITY_SECONDS: Final = 10
_T = TypeVar("_T")


class Site:
    """The deployed stack and its world. Usable from several threads, each with a :class:`Patience` of its own."""

    def __init__(self, stack: Stack, world: World, administrator: Administrator, pushes: SimulatedApns) -> None:
        self.stack = stack
        self.world = world
        self.administrator = administrator
        self.pushes = pushes
        self.ledger = Ledger(world.webhook_control, path=world.webhook_path)
        self.proxies: dict[str, AwsProxy] = {}
        """By the function whose calls pass."""

    @contextmanager
    def proxied(self, *functions: str) -> Iterator[None]:
        """Lead these functions to AWS through a proxy each; they start anew for that, and so they do in the end."""
        with ExitStack() as to_undo:
            for function in functions:
                proxy = to_undo.enter_context(AwsProxy(self.stack.emulator.url))
                to_undo.callback(self.proxies.pop, function)
                self.proxies[function] = proxy
                to_undo.enter_context(self._variables(function, AWS_ENDPOINT_URL=proxy.url))
            yield

    def receiver(self, **behaviour: object) -> None:
        """Let the customer's listener behave so, at the hook that everything is delivered to."""
        document = {"path": self.world.webhook_path, **behaviour}
        httpx.put(f"{self.world.webhook_control}/behaviour", json=document, trust_env=False).raise_for_status()

    def receiver_is_well(self) -> None:
        """Let the customer's listener be well again."""
        httpx.delete(f"{self.world.webhook_control}/behaviour", trust_env=False).raise_for_status()

    def pending(self, enrollment_id: str) -> list[str]:
        """Return the commands that the table has for an enrollment, also those that were cleared."""
        found = self.stack.emulator.dynamodb.query(
            TableName=self.stack.outputs["EnrollmentTableName"],
            KeyConditionExpression="enrollment_id = :id AND begins_with(#item, :pending)",
            ExpressionAttributeNames={"#item": "item"},
            ExpressionAttributeValues={":id": {"S": enrollment_id}, ":pending": {"S": "c#"}},
            ConsistentRead=True,
        )["Items"]
        return [item["command_uuid"]["S"] for item in found]

    def publish_leftovers(self) -> None:
        """Let housekeeping do now what it does every few minutes."""
        self.stack.emulator.lambda_.invoke(FunctionName=f"{self.stack.name}-housekeeping", Payload=b"{}")

    def hurry(self) -> None:
        """Let messages that were not done with come back at once: time, helped along."""
        for url in self._queue_urls():
            self.stack.emulator.sqs.set_queue_attributes(
                QueueUrl=url, Attributes={"VisibilityTimeout": str(_VISIBILITY_SECONDS)}
            )

    def undrained(self, *, seconds: float) -> list[str]:
        """Wait until all queues are empty; return those that are not, and dead-letter queues that hold something."""
        deadline = time.monotonic() + seconds
        while left := [name for name, count in self._waiting().items() if count]:
            if time.monotonic() > deadline:
                return [f"the queue {name} is not drained" for name in left]
            time.sleep(0.5)
        return []

    def _waiting(self) -> Mapping[str, int]:
        waiting = {}
        for url in self._queue_urls():
            found = self.stack.emulator.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            # One that is delayed waits for its time: a push for a topic that Apple refused, as the worker has it.
            waiting[url.rpartition("/")[2]] = int(found["ApproximateNumberOfMessages"]) + int(
                found["ApproximateNumberOfMessagesNotVisible"]
            )
        return waiting

    def _queue_urls(self) -> list[str]:
        return self.stack.emulator.sqs.list_queues(QueueNamePrefix=self.stack.name).get("QueueUrls", [])

    def start_anew(self, function: str) -> None:
        """Let a function forget all that it keeps in memory."""
        with self._variables(function, STARTED_ANEW=str(time.monotonic_ns())):
            pass

    @contextmanager
    def _variables(self, function: str, **variables: str) -> Iterator[None]:
        functions, name = self.stack.emulator.lambda_, f"{self.stack.name}-{function}"
        before = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        functions.update_function_configuration(FunctionName=name, Environment={"Variables": before | variables})
        try:
            yield
        finally:
            functions.update_function_configuration(FunctionName=name, Environment={"Variables": before})

    def new_link(self) -> "Link":
        """Make an enrollment link that counts its uses."""
        answer = self.administrator.request("POST", "/v2/enrollment-links", document={})
        assert answer.status_code == HTTPStatus.CREATED, answer.text
        return Link(self, answer.json()["url"])

    def item(self, enrollment_id: str, item: str = "!") -> Mapping[str, Any]:
        """Return what the enrollment table has there, without its types; nothing, if there is nothing."""
        found = self.stack.emulator.dynamodb.get_item(
            TableName=self.stack.outputs["EnrollmentTableName"],
            Key={"enrollment_id": {"S": enrollment_id}, "item": {"S": item}},
            ConsistentRead=True,
        )
        return {name: next(iter(value.values())) for name, value in found.get("Item", {}).items()}

    def change(self, enrollment_id: str, **numbers: int) -> None:
        """Set numbers of an enrollment's record: time, helped along."""
        names = list(numbers)
        self.stack.emulator.dynamodb.update_item(
            TableName=self.stack.outputs["EnrollmentTableName"],
            Key={"enrollment_id": {"S": enrollment_id}, "item": {"S": "!"}},
            UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in names),
            ExpressionAttributeValues={f":{name}": {"N": str(numbers[name])} for name in names},
        )


class Link:
    """An enrollment link, and how often it should have been used."""

    def __init__(self, site: Site, url: str) -> None:
        self._site = site
        self.url = url
        self.key = hashlib.sha256(url.rpartition("/")[2].encode()).hexdigest()[:32]
        """Under which the table has it."""
        self.uses = 0

    def check(self) -> None:
        """Hold the deployment's count against ours."""
        found = self._site.stack.emulator.dynamodb.get_item(
            TableName=self._site.stack.outputs["ResourceTableName"],
            Key={"collection": {"S": "enrollment_link"}, "name": {"S": self.key}},
            ConsistentRead=True,
        )["Item"]
        assert int(found["uses"]["N"]) == self.uses, f"the link counts {found['uses']['N']} uses, not {self.uses}"


class Patience:
    """How those who get no answer go on: they wait, AWS recovers meanwhile, and they ask again, the same."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._disturbances: list[Disturbance] = []

    def lasts(self, disturbance: Disturbance) -> None:
        """Live with trouble until somebody waits."""
        self._disturbances.append(disturbance)

    def wait(self, _seconds: float = 0) -> None:
        """Wait in no time: what was the matter is over."""
        while self._disturbances:
            self._disturbances.pop().end()

    def again(self, act: Callable[[], _T]) -> _T:
        """Do what a device sends once, and its user repeats."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return act()
            except ServerRefused as refused:
                if not refused.passing:
                    raise
            except NoAnswer:
                pass
            self.wait()
        return act()

    def administer(self, method: str, path: str, document: object = None) -> httpx.Response:
        """Send an administrator's request; the answer is not 503, at last."""
        for _ in range(_ATTEMPTS - 1):
            answer = self._site.administrator.request(method, path, document=document)
            if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                return answer
            assert answer.headers["retry-after"]
            self.wait()
        return self._site.administrator.request(method, path, document=document)

    def queue(self, enrollment_id: str, request_type: str, **fields: Any) -> str:
        """Queue a command, whose UUID the administrator chose; return it."""
        document = {"udid": enrollment_id, "request_type": request_type, **fields}
        answer = self.administer("POST", "/v1/commands", document)
        assert answer.status_code == HTTPStatus.CREATED, f"{answer.status_code} {answer.text}"
        uuid: str = answer.json()["payload"]["command_uuid"]
        self._site.ledger.queued(uuid)
        return uuid

    def device(self, hardware: Hardware | None = None, **more: Any) -> SimulatedDevice:
        """Make a device that waits like this."""
        return SimulatedDevice(
            hardware or Hardware.iphone(),
            push=self._site.pushes,
            trust=self._site.world.trust,
            observer=self._site.ledger.observe,
            sleep=self.wait,
            **more,
        )

    def enrolled(self, link: Link, hardware: Hardware | None = None, **more: Any) -> SimulatedDevice:
        """Make a device and enroll it."""
        device = self.device(hardware, **more)
        device.enroll(link.url)
        link.uses += 1
        return device
