"""How the service refuses a request."""

from http import HTTPStatus


class Refusal(Exception):  # noqa: N818 - it is an answer, and no fault of this program
    """An answer with one of Apple's codes."""

    def __init__(self, code: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(code)
        self.code = code
        self.status = status
