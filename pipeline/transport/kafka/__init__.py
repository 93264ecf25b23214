"""Kafka behind the transport protocol, by way of kafka-python (3.0.12 or later).

What the library does and does not do was read in its source; the comments say which of it each piece answers to.
"""

import logging

from pipeline.transport.kafka.transport import KafkaTransport

__all__ = ["KafkaTransport"]

# At DEBUG the library logs its configuration, passwords included, and every record.
logging.getLogger("kafka").setLevel(logging.WARNING)
