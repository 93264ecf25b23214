"""What kafka-python's errors mean to a worker."""

from kafka import errors

from pipeline.transport.base import BrokerUnavailable, NotOwner, RecordRejected, TransportError, UnknownTopic

LOGIN_REFUSED = (errors.SaslAuthenticationFailedError, errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError)

_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[TransportError], str], ...] = (
    (
        LOGIN_REFUSED,
        TransportError,
        ": check kafka.sasl_mechanism, sasl_username and sasl_password",
    ),
    (
        (errors.InvalidSessionTimeoutError,),
        TransportError,
        ": kafka.session_timeout_ms is outside the broker's group.min.session.timeout.ms and group.max.session.timeout.ms",
    ),
    ((errors.CommitFailedError, errors.IllegalGenerationError, errors.UnknownMemberIdError, errors.FencedInstanceIdError), NotOwner, ""),
    (
        (errors.UnknownTopicOrPartitionError, errors.InvalidTopicError, errors.InvalidPartitionsError),
        UnknownTopic,
        ": penstock topics apply",
    ),
    (
        (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError, errors.InvalidRecordError, errors.TopicAuthorizationFailedError),
        RecordRejected,
        "",
    ),
    ((errors.UnsupportedCodecError,), TransportError, ": install that codec's package, or set the topic's compression.type to uncompressed"),
    ((errors.AuthorizationError,), TransportError, ": the broker's ACLs do not allow it"),
    ((errors.RetriableError, errors.RebalanceInProgressError, OSError), BrokerUnavailable, ""),
)
"""The first row that fits counts: several of the library's errors are retriable, and something else besides."""


def explain(error: Exception, doing: str) -> TransportError:
    """The transport's word for an error of the library.

    Args:
        error: What the library raised.
        doing: What was going on, to begin the message with.
    """
    if isinstance(error, TransportError):
        return error
    text = f"{doing}: {str(error) or type(error).__name__}"
    for classes, meaning, hint in _MEANINGS:
        if isinstance(error, classes):
            return meaning(text + hint)
    return TransportError(text)
