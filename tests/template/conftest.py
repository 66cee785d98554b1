import pytest

from tests.template.document import Template


@pytest.fixture(scope="session")
def template() -> Template:
    return Template.read()
