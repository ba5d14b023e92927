"""Configuration for every test of the pages."""

import pytest

# If a page is out of date, the failure shows both texts side by side.
pytest.register_assert_rewrite("tests.docs.walk")
