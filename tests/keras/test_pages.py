"""Every code block of the documentation that runs Keras, on this backend."""

import pytest

from tests.support import documents

pytestmark = pytest.mark.any_backend

PAGES = [p for p in documents.PAGES if documents.needs_keras(p)]


def test_there_are_such_pages():
    assert {"README.md", "keras.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=documents.name)
def test_the_code_of_a_page_runs(page):
    documents.run(page)
