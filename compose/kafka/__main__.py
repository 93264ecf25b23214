"""Runs one broker in the foreground until Ctrl-C or SIGTERM: `PORT=9092 DATA_DIR=... python -m compose.kafka`."""

import os
import signal
import sys
import time
from pathlib import Path

from compose.kafka import java
from compose.kafka.broker import BrokerFailedError, KafkaBroker


def main() -> int:
    """Starts the broker, says where it is, and stops it in order when asked to.

    Returns:
        0 after a clean stop, 1 when the broker cannot start or ends by itself.
    """
    missing = java.missing()
    if missing is not None:
        return _fail(missing)
    port = os.environ.get("PORT", "9092")
    if not port.isdecimal():
        return _fail(f"PORT is {port!r}; give a port number, such as PORT=9092")
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell starts its background jobs deaf to it
        signal.signal(number, signal.default_int_handler)
    data_dir = os.environ.get("DATA_DIR")
    broker = KafkaBroker(Path(data_dir).absolute() if data_dir else None, port=int(port))
    try:
        broker.start()
        _say(f"Kafka answers on {broker.bootstrap_servers}; data and log in {broker.directory}; Ctrl-C stops it")
        while broker.pid is not None:
            time.sleep(0.2)
        return _fail(f"the broker ended by itself; the end of its log:\n{broker.log_tail()}")
    except BrokerFailedError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        _say("stopping the broker")
        broker.stop()
        return 0
    finally:
        if not data_dir:
            broker.close()


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def _fail(message: str) -> int:
    _say(message)
    return 1


if __name__ == "__main__":
    sys.exit(main())
