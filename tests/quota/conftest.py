"""A worker's metrics, and rates to test with."""

import pytest

from pipeline.telemetry import Metrics


@pytest.fixture
def metrics() -> Metrics:
    """Metrics of their own."""
    return Metrics()
