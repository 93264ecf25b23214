"""Where a key belongs: the 32-bit MurmurHash2 of Kafka's Java client, which every other client follows.

Source: Austin Appleby's MurmurHash2 with the seed of `org.apache.kafka.common.utils.Utils.murmur2`.
"""

_SEED = 0x9747B28C
_FACTOR = 0x5BD1E995
_MASK = 0xFFFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """Returns the partition of `key` among `partitions`; a null key is the producer's own choice and has no answer here."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Hashes `data` to an unsigned 32-bit number."""
    tail = len(data) & ~3
    state = _SEED ^ len(data)
    for start in range(0, tail, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _FACTOR & _MASK
        word = (word ^ word >> 24) * _FACTOR & _MASK
        state = (state * _FACTOR & _MASK) ^ word
    if tail < len(data):
        state = (state ^ int.from_bytes(data[tail:], "little")) * _FACTOR & _MASK
    state = (state ^ state >> 13) * _FACTOR & _MASK
    return state ^ state >> 15
