"""On which engines a test runs every day, and on which it is for a sweep."""

import pytest

from tests.testbed.engine import NEW, OLD
from tests.testbed.parts import STORE_VERSION

_SWEPT = [pytest.param(kind, marks=pytest.mark.sweep) for kind in (OLD.version, STORE_VERSION)]
ON_NEW = pytest.mark.parametrize("engine", [NEW.version], indirect=True)
ON_EACH = pytest.mark.parametrize("engine", [NEW.version, *_SWEPT], indirect=True)
"""What Sidecar does, not what an engine does."""
OF_ANY_ENGINE = pytest.mark.parametrize("any_engine", [NEW.version, *_SWEPT], indirect=True)
"""The same, over the line."""
OF_ANY_STORE = pytest.mark.parametrize("any_engine", [OLD.version, NEW.version, _SWEPT[1]], indirect=True)
"""What has nothing to do with how images are kept."""
