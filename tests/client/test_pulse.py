"""Whether the log still answers."""

from pipeline.client.pulse import PROBE_AFTER_S, Pulse


def test_a_probe_is_due_after_a_silence():
    """The clock of the silence starts again with every sign of life and every probe."""
    pulse = Pulse(100.0)
    assert not pulse.is_due(100.0 + PROBE_AFTER_S - 0.1)
    assert pulse.is_due(100.0 + PROBE_AFTER_S)
    pulse.miss(103.0)
    assert not pulse.is_due(103.0 + PROBE_AFTER_S - 0.1)
    pulse.beat(104.0)
    assert not pulse.is_due(104.0 + PROBE_AFTER_S - 0.1)


def test_the_log_is_away_since_it_was_last_heard():
    """Not since the first probe that failed; and a sign of life ends it."""
    pulse = Pulse(100.0)
    assert pulse.away_s(102.0) is None
    pulse.miss(104.0)
    pulse.miss(106.0)
    assert pulse.away_s(110.0) == 10.0
    pulse.beat(111.0)
    assert pulse.away_s(112.0) is None
