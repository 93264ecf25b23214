"""The log of one machine: SQLite in WAL mode behind the transport protocol, shared by several processes.

Topics, partitions, offsets, consumer groups with one owner per partition: what the worker needs of Kafka, without Kafka.

Durability: an acknowledged record survives the death of any process. `synchronous=NORMAL` leaves flushing to the
operating system between checkpoints, so a power cut may take the last moments with it; the file stays consistent.
A process that is *stopped* inside a write transaction (a millisecond or so) holds up the others' writes until it goes on
or dies. Beyond one machine, or where these limits matter, the answer is Kafka.
"""

from pipeline.transport.embedded.transport import EmbeddedTransport

__all__ = ["EmbeddedTransport"]
