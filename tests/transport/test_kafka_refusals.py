"""What Kafka's errors and settings mean, without a broker."""

from pathlib import Path

import pytest
from kafka import errors

from pipeline.settings import KafkaSettings
from pipeline.transport.base import BrokerUnavailable, NotOwner, RecordRejected, TransportError, UnknownTopic
from pipeline.transport.kafka.errors import explain
from pipeline.transport.kafka.sockets import tls_context


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (errors.KafkaTimeoutError("late"), BrokerUnavailable),
        (errors.KafkaConnectionError("gone"), BrokerUnavailable),
        (errors.NotLeaderForPartitionError(), BrokerUnavailable),
        (ConnectionResetError(104, "reset"), BrokerUnavailable),
        (errors.UnknownTopicOrPartitionError(), UnknownTopic),
        (errors.CommitFailedError(), NotOwner),
        (errors.UnknownMemberIdError(), NotOwner),
        (errors.IllegalGenerationError(), NotOwner),
        (errors.MessageSizeTooLargeError(), RecordRejected),
        (errors.TopicAuthorizationFailedError(), RecordRejected),
        (errors.GroupAuthorizationFailedError(), TransportError),
        (errors.SaslAuthenticationFailedError("no"), TransportError),
        (errors.UnsupportedCodecError("zstd"), TransportError),
        (ValueError("a mistake of ours"), TransportError),
        (NotOwner("already explained"), NotOwner),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_says_whether_to_wait_to_give_up_or_to_mend_something(error: Exception, meaning: type[TransportError]):
    """Exactly that class: a worker retries one, exits on another, and carries on after a third."""
    failure = explain(error, "testing")
    assert type(failure) is meaning
    assert isinstance(error, TransportError) or str(failure).startswith("testing: ")


def test_wrong_files_for_tls_are_named_before_anything_is_tried(tmp_path: Path):
    """A file that is missing, and one that holds no certificate; the password of a key is never shown."""
    (tmp_path / "text").write_text("no certificate")
    for path in (tmp_path / "missing", tmp_path / "text"):
        for settings in (
            {"ssl_cafile": path},
            {"ssl_certfile": path, "ssl_keyfile": path, "ssl_password": "key-secret"},
        ):
            with pytest.raises(TransportError, match=r"kafka\.ssl_cafile") as refused:
                tls_context(KafkaSettings(security_protocol="SSL", **settings))  # type: ignore[arg-type]
            assert not isinstance(refused.value, BrokerUnavailable)
            assert "key-secret" not in str(refused.value)


def test_tls_is_made_only_where_it_is_asked_for():
    """And checks the broker's name unless told otherwise."""
    assert tls_context(KafkaSettings()) is None
    checked = tls_context(KafkaSettings(security_protocol="SSL"))
    unchecked = tls_context(KafkaSettings(security_protocol="SSL", ssl_check_hostname=False))
    assert checked is not None
    assert unchecked is not None
    assert (checked.check_hostname, unchecked.check_hostname) == (True, False)
    assert checked.verify_mode == unchecked.verify_mode != 0
