"""A producer in a process of its own.

The library is Python, and every record that it frames takes the interpreter's lock for some ten microseconds. In the process
of a worker these come out of its steps, twice: once for the work, and once more since a step that runs a few hundred tensor
operations lets go of the lock at each, and has to wait for it whenever one of the library's threads has taken it meanwhile.
"""

from pipeline.transport.kafka.apart.producer import ApartProducer

__all__ = ["ApartProducer"]
