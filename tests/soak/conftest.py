"""The fixtures of the tests with real processes serve here too."""

from tests.integration.conftest import connect, pytest_runtest_makereport, start_worker

__all__ = ["connect", "pytest_runtest_makereport", "start_worker"]
