"""What a test needs is said by its folder: marks and time limits are set here, not on each test."""

from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
FOLDER_TIMEOUT_SECONDS = {"integration": 120, "e2e": 600}

# These are no test files by their names, yet a failure in them should show its values.
pytest.register_assert_rewrite("tests.journal_contract", "tests.integration.swept_run")

# The time limit of a test is pytest's; one slow example on a busy machine is no failure.
settings.register_profile("sidecar", deadline=None)
settings.load_profile("sidecar")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder not in FOLDER_TIMEOUT_SECONDS:
            continue
        if item.get_closest_marker("sweep") is None:  # which is asked for by its own mark
            item.add_marker(folder)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(FOLDER_TIMEOUT_SECONDS[folder]))
