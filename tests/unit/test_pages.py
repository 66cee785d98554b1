"""What people see who open in a browser what is meant for devices."""

from html.parser import HTMLParser
from http import HTTPStatus

import pytest

from mdmlib.http import pages
from mdmlib.http.device_app import DeviceAnswer

WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
)
LINUX = "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"
ANDROID = (
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Mobile Safari/537.36"
)
WINDOWS_PHONE = "Mozilla/5.0 (Mobile; Windows Phone 8.1; Android 4.0; ARM; Trident/7.0; like iPhone OS 7_0_3 Mac OS X)"
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.1 Safari/605.1.15"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Version/18.1 Mobile/15E148 Safari/604.1"
IPAD = (
    "Mozilla/5.0 (iPad; CPU OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/131.0 Mobile/15E148"
)


@pytest.mark.parametrize("user_agent", [WINDOWS, LINUX, ANDROID, WINDOWS_PHONE])
def test_browsers_elsewhere_are_known(user_agent: str) -> None:
    assert pages.is_browser_elsewhere(user_agent)


@pytest.mark.parametrize(
    "user_agent",
    [
        MAC,
        IPHONE,
        IPAD,
        "",
        "curl/8.9",
        "Device%20Enrollment/1 CFNetwork/1568",
        "MDM/1.0",
        "profiled/1.0",
        "ProfileHelper/1.0",
    ],
)
def test_apples_browsers_and_whatever_is_no_browser_is_taken_for_a_device(user_agent: str) -> None:
    assert not pages.is_browser_elsewhere(user_agent)


ALL = [
    pages.enroll_on_a_device("Bücher & <Söhne>"),
    pages.link_unusable(HTTPStatus.FORBIDDEN),
    pages.link_missing(HTTPStatus.FORBIDDEN),
    pages.server("Bücher & <Söhne>"),
]


class Document(HTMLParser):
    """Counts what is opened and closed, and collects the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("page", ALL)
def test_a_page_is_whole_loads_nothing_and_stays_nowhere(page: DeviceAnswer) -> None:
    assert isinstance(page.body, str)
    document = Document(page.body)

    assert document.open == []
    assert not {"src=", "href=", "<script"} & set(page.body.split())
    assert page.content_type == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "no-referrer"


def test_an_organizations_name_is_no_markup() -> None:
    for page in (ALL[0], ALL[3]):
        assert isinstance(page.body, str)
        assert "<Söhne>" not in page.body
        assert "Bücher & <Söhne>" in Document(page.body).text
