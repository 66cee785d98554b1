"""The command line without a server: what is typed, what is told, what is tried again."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.core import TyperGroup

from picomdm.admin_api import AdminAPI
from picomdm.command_fields import fields_of
from picomdm.deployment import Deployment
from picomdm.durations import seconds_of
from picomdm.errors import RefusedError, UnreachableError
from picomdm.main import _PANELS, app, run
from picomdm.send import RequestTypes
from picomdm.terminal import Terminal

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


class Api(AdminAPI):
    """An admin API whose answers are scripted; it does not wait between attempts."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers: list[httpx.Response | Exception] = list(answers)
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []
        super().__init__(
            Deployment(given_admin_url="https://admin.example.org/"),
            transport=httpx.MockTransport(self._answer),
            sleep=self.waits.append,
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


# Fields


def test_fields_are_texts_json_lists_and_files(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\x00\xff")

    assert fields_of(["pin=12=34", "force:=true", "n:=5", "queries+=A", "queries+=B", f"payload@{file}", "note="]) == {
        "pin": "12=34",
        "force": True,
        "n": 5,
        "queries": ["A", "B"],
        "payload": "AP8=",
        "note": "",
    }


@pytest.mark.parametrize(
    "arguments", [["pin"], ["=x"], ["a b=c"], ["pin:=secret1"], ["a=1", "a=2"], ["a=1", "a+=2"], ["payload@/nowhere"]]
)
def test_a_field_that_is_none_is_refused_without_its_value(arguments: Sequence[str]) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        fields_of(arguments)
    assert "secret1" not in refused.value.message


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1_800), ("12H", 43_200), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_durations_are_read_as_people_write_them(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "-1d", "1.5h", "1 d", "1y", "9" * 20])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        seconds_of(text)


# Requests


def test_a_request_is_signed_over_what_is_sent() -> None:
    api = Api(httpx.Response(200, json={"ok": True}))

    assert api.get("/v2/enrollments", state="checked out", type="Device,User") == {"ok": True}
    request = api.requests[0]
    assert str(request.url) == "https://admin.example.org/v2/enrollments?state=checked%20out&type=Device%2CUser"
    assert request.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/eu-central-1/execute-api/aws4_request" in request.headers["Authorization"]


def test_what_may_pass_is_tried_again_when_repeating_does_no_harm() -> None:
    api = Api(httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(200, json={}))

    assert api.request("POST", "/v1/commands", document={}, repeatable=True) == {}
    assert api.waits == [1.0, 2.0]


def test_what_would_be_done_twice_is_not_tried_again() -> None:
    api = Api(httpx.Response(503, json={"detail": "busy", "code": "unavailable"}))

    with pytest.raises(RefusedError) as refused:
        api.request("POST", "/v2/enrollment-links", document={})
    assert (refused.value.status, refused.value.code, api.waits) == (503, "unavailable", [])


def test_after_three_attempts_it_is_enough() -> None:
    with pytest.raises(UnreachableError):
        Api(*[httpx.ConnectError("refused")] * 3).get("/version")
    with pytest.raises(RefusedError):
        Api(*[httpx.Response(503)] * 3).get("/version")


def test_a_change_is_made_to_what_was_read_or_once_more() -> None:
    api = Api(
        httpx.Response(200, json={"a": 1, "b": 1}, headers={"ETag": '"first"'}),
        httpx.Response(412, json={"detail": "changed", "code": "changed_meanwhile"}),
        httpx.Response(200, json={"a": 2, "b": 1}, headers={"ETag": '"second"'}),
        httpx.Response(200, json={}),
    )

    assert api.change("/v2/enrollment-profile", lambda read: read | {"b": 2}) == {}
    assert [request.headers.get("If-Match") for request in api.requests] == [None, '"first"', None, '"second"']
    assert json.loads(api.requests[-1].content) == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("answer", "message", "code", "field"),
    [
        (
            httpx.Response(400, json={"detail": "limit has to be …", "code": "invalid_field", "field": "limit"}),
            "limit has to be …",
            "invalid_field",
            "limit",
        ),
        (httpx.Response(404, json={"error": "no such", "code": "not_found"}), "no such", "not_found", None),
        (
            httpx.Response(403, json={"message": "Forbidden"}),
            "Forbidden. The keys are wrong, or their user lacks the stack's AdministratorPolicy.",
            "refused",
            None,
        ),
        (httpx.Response(500, text="oops"), "500 Internal Server Error", "refused", None),
        (httpx.Response(502, json=["?"]), "502 Bad Gateway", "refused", None),
    ],
)
def test_refusals_of_all_forms_are_understood(
    answer: httpx.Response, message: str, code: str, field: str | None
) -> None:
    with pytest.raises(RefusedError) as refused:
        Api(answer).request("DELETE", "/v2/webhooks/x")

    assert (refused.value.message, refused.value.code, refused.value.field) == (message, code, field)


def test_a_list_is_read_to_its_end() -> None:
    api = Api(
        httpx.Response(200, json={"webhooks": [{"id": "a"}], "next_cursor": "b="}),
        httpx.Response(200, json={"webhooks": [], "next_cursor": "c"}),
        httpx.Response(200, json={"webhooks": [{"id": "d"}], "next_cursor": None}),
    )

    assert [entry["id"] for entry in api.entries("/v2/webhooks", "webhooks")] == ["a", "d"]
    assert [request.url.params.get("cursor") for request in api.requests] == [None, "b=", "c"]


# Terminal


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        ("2026-11-20T12:00:00Z", "just now"),
        ("2026-11-20T11:59:01Z", "just now"),
        ("2026-11-20T11:59:00Z", "1 minute ago"),
        ("2026-11-20T10:00:00Z", "2 hours ago"),
        ("2026-11-10T12:00:00Z", "10 days ago"),
        ("2026-11-20T12:00:30Z", "in less than a minute"),
        ("2026-11-27T12:00:00Z", "in 7 days"),
    ],
)
def test_instants_are_told_as_people_do(instant: str, text: str) -> None:
    assert Terminal(now=lambda: datetime(2026, 11, 20, 12, tzinfo=UTC)).ago(instant) == text


def test_what_devices_say_of_themselves_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().table(("NAME",), [("[red]Ada[/red]'s \x1b[31mPhone",)], empty="")
    Terminal().facts({"name": "[/bold]"})

    said = capsys.readouterr().out
    assert "[red]Ada[/red]'s" in said
    assert "[/bold]" in said
    assert "\x1b" not in said


def test_no_id_is_cut_short_by_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    Terminal().table(("ID", "SHA-256"), [("x" * 36, "y" * 64)], empty="")
    Terminal().facts({"id": "x" * 36, "certificate": "y" * 64})

    said = capsys.readouterr().out
    assert (said.count("x" * 36), said.count("y" * 64)) == (2, 2)


def test_an_answer_for_programs_is_json_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    terminal.as_json = True
    with terminal.progress("Working …") as tell:
        tell("Still working …")
    terminal.note("by the way")
    terminal.answer({"name": "Ä"}, lambda: terminal.say("never"))

    captured = capsys.readouterr()
    document: dict[str, Any] = json.loads(captured.out)
    assert (document, captured.err) == ({"name": "Ä"}, "")


# Completion


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("picomdm enr", {"enroll", "enrollment-profile", "enrollments"}),
        ("picomdm commands send device-l", {"device-location", "device-lock"}),
        ("picomdm commands send device-lock --pi", {"--pin"}),
        ("picomdm contexts use pr", {"prod"}),
        ("picomdm --context pr", {"prod"}),
    ],
)
def test_the_shell_completes_what_was_begun(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, typed: str, completed: set[str]
) -> None:
    monkeypatch.setenv("PICOMDM_CONFIG", str(tmp_path / "contexts.json"))
    assert run(["contexts", "add", "prod", "--stack", "picomdm-prod"]) == 0
    capsys.readouterr()
    monkeypatch.setenv("_PICOMDM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))

    assert run([]) == 0
    assert set(capsys.readouterr().out.split()) == completed


# What is told of all this


def test_the_documentation_names_every_command() -> None:
    text = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    documented = set(re.findall(r"`picomdm ((?:[a-z-]+ ?)+)", text))

    assert set(paths(typer.main.get_command(app))) <= {words.strip() for words in documented}


def test_help_shows_every_command_in_one_panel() -> None:
    shown = {name for name, command in typer.main.get_command(app).commands.items() if not command.hidden}  # type: ignore[attr-defined]  # of its private click
    panels = [name for names in _PANELS.values() for name in names]

    assert sorted(panels) == sorted(shown)


def paths(command: Any, *names: str) -> Iterator[str]:
    """Yield what is typed for each command that help shows."""
    if not isinstance(command, TyperGroup) or isinstance(command, RequestTypes):
        yield " ".join(names)
        return
    for name, child in command.commands.items():
        if not child.hidden:
            yield from paths(child, *names, name)
