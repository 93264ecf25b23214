from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as reference

from pipeline.transport.murmur2 import murmur2, partition_of


@given(st.binary(max_size=200))
def test_the_hash_is_that_of_the_kafka_client(key: bytes):
    """Any key hashes as it does in kafka-python, which took it from the Java client."""
    assert murmur2(key) == reference(key) & 0xFFFFFFFF


@given(st.binary(max_size=50), st.integers(1, 1_000))
def test_every_key_has_a_partition(key: bytes, partitions: int):
    """The partition exists, and is the Java client's for that hash."""
    assert partition_of(key, partitions) == (reference(key) & 0x7FFFFFFF) % partitions
