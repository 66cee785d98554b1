"""How requests find their function on the device edge, and how its answers and errors go back."""

from base64 import b64decode
from typing import Any

import pytest

from mdmlib.http.device_app import DeviceAnswer, DeviceApp, GatewayRequest
from tests.gateway import http_event


class FirstError(Exception):
    pass


class SecondError(FirstError):
    pass


@pytest.fixture
def app() -> DeviceApp:
    app = DeviceApp()

    @app.route("GET /whole", "POST /whole")
    def whole(_event: GatewayRequest) -> DeviceAnswer:
        return DeviceAnswer(200, "whole", "text/plain")

    @app.route("GET /parts/{first}/{second}")
    def parts(event: GatewayRequest) -> DeviceAnswer:
        return DeviceAnswer(200, f"{event.parameters['first']}|{event.parameters['second']}")

    @app.route("ANY /rest.of/{path+}")
    def rest(event: GatewayRequest) -> DeviceAnswer:
        return DeviceAnswer(200, event.parameters["path"].encode(), headers={"X-Method": event.http_method})

    @app.route("GET /fails/{number}")
    def fails(event: GatewayRequest) -> DeviceAnswer:
        raise {"1": FirstError, "2": SecondError}.get(event.parameters["number"], KeyError)

    @app.error_handler(FirstError)
    def first(error: FirstError) -> DeviceAnswer:
        return DeviceAnswer(400, type(error).__name__)

    return app


def body(app: DeviceApp, method: str, path: str) -> Any:
    answer = app.answer(http_event(method, path))
    return answer["body"] if answer["statusCode"] == 200 else answer["statusCode"]


def test_a_request_finds_the_function_of_its_method_and_path(app: DeviceApp) -> None:
    assert body(app, "GET", "/whole") == body(app, "POST", "/whole") == "whole"
    assert body(app, "GET", "/parts/a b/c:d%") == "a b|c:d%"
    for method, path in (("PUT", "/whole"), ("GET", "/whole/"), ("GET", "/parts/a"), ("GET", "/parts/a/b/c")):
        assert body(app, method, path) == 404


@pytest.mark.parametrize("path", ["a", "a/b//c", "a\nb", "ü/%2F"])
def test_what_is_left_of_a_path_is_taken_as_it_is_whatever_the_method(app: DeviceApp, path: str) -> None:
    answer = app.answer(http_event("PROPFIND", f"/rest.of/{path}"))

    assert (b64decode(answer["body"]).decode(), answer["headers"]) == (path, {"X-Method": "PROPFIND"})
    assert body(app, "GET", f"/restXof/{path}") == body(app, "GET", "/rest.of/") == 404


def test_text_goes_back_as_text_and_bytes_in_base64(app: DeviceApp) -> None:
    assert app.answer(http_event("GET", "/whole")) == {
        "statusCode": 200,
        "headers": {"Content-Type": "text/plain"},
        "body": "whole",
        "isBase64Encoded": False,
    }
    assert DeviceAnswer(200).for_gateway() == {"statusCode": 200, "headers": {}, "body": "", "isBase64Encoded": True}


def test_an_error_is_answered_by_what_is_there_for_its_kind_or_for_one_above(app: DeviceApp) -> None:
    answers = [app.answer(http_event("GET", f"/fails/{number}")) for number in (1, 2)]

    assert [answer["body"] for answer in answers] == ["FirstError", "SecondError"]
    with pytest.raises(KeyError):
        app.answer(http_event("GET", "/fails/3"))

    @app.error_handler(SecondError, KeyError)
    def second(_error: Exception) -> DeviceAnswer:
        return DeviceAnswer(500)

    assert [app.answer(http_event("GET", f"/fails/{number}"))["statusCode"] for number in (1, 2, 3)] == [400, 500, 500]
