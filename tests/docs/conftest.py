"""What holds for every test of the pages."""

import pytest

# So that a page that tells no longer what is true fails with both texts side by side.
pytest.register_assert_rewrite("tests.docs.walk")
