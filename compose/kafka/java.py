"""The Java side of a broker: where Java and Kafka's jars are, and what is missing."""

import os
import re
import shutil
import subprocess
from pathlib import Path

LIBS_DIR = Path(__file__).resolve().parents[2] / ".cache" / "kafka" / "libs"
MAJOR_MIN = 17

_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",  # one small heap on a shared machine: no collector threads
    "-XX:TieredStopAtLevel=1",  # a broker that lives for minutes never earns back the optimising compiler
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
)


def tool(name: str) -> str:
    """Returns the path of a JDK tool such as `java` or `keytool`: that of JAVA_HOME, else the first on PATH.

    Raises:
        FileNotFoundError: There is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(name, path=f"{home}/bin" if home else None)
    if found is None:
        raise FileNotFoundError(f"no `{name}` in {home or 'PATH'}: install Java {MAJOR_MIN} or later")
    return found


def command(main_class: str) -> list[str]:
    """Returns the command line that runs a class of Kafka."""
    return [tool("java"), *_OPTIONS, "-cp", f"{LIBS_DIR}/*", main_class]


def missing() -> str | None:
    """Says what a broker lacks on this machine and how to get it; None when it can run."""
    if not any(LIBS_DIR.glob("kafka_2.13-*.jar")):
        return "Kafka's jars are not there: run `compose/bootstrap.sh kafka`"
    try:
        banner = subprocess.run([tool("java"), "-version"], capture_output=True, text=True, check=True).stderr
    except FileNotFoundError as error:
        return f"{error}: run `compose/bootstrap.sh kafka`"
    version = re.search(r'version "(\d+)', banner)
    if version is None or int(version[1]) < MAJOR_MIN:
        return f"Kafka needs Java {MAJOR_MIN} or later, and this one says {banner.splitlines()[0]}: run `compose/bootstrap.sh kafka`"
    return None
