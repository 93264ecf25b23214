"""A throwaway certificate authority and a server certificate for 127.0.0.1, made with the JDK's keytool."""

import subprocess
from pathlib import Path

from compose.kafka import java

CA_FILE = "ca.pem"
KEYSTORE_FILE = "server.p12"
STORE_PASSWORD = "throwaway"  # noqa: S105 - of keys that exist for one run of a loopback broker

_KEY = ("-keyalg", "EC", "-groupname", "secp256r1", "-validity", "2")
_FAST = ("-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC")


def generate(directory: Path) -> None:
    """Writes `ca.pem` and the broker's keystore into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    authority, server = directory / "ca.p12", directory / KEYSTORE_FILE
    _keytool(authority, "ca", "-genkeypair", "-dname", "CN=Penstock throwaway CA", "-ext", "bc:critical=ca:true", "-ext", "ku=keyCertSign", *_KEY)
    certificate = _keytool(authority, "ca", "-exportcert", "-rfc")
    _keytool(server, "server", "-genkeypair", "-dname", "CN=localhost", *_KEY)
    request = _keytool(server, "server", "-certreq")
    names = ("-ext", "san=dns:localhost,ip:127.0.0.1")
    signed = _keytool(authority, "ca", "-gencert", "-rfc", "-validity", "2", *names, stdin=request)
    _keytool(server, "ca", "-importcert", "-noprompt", stdin=certificate)
    _keytool(server, "server", "-importcert", stdin=signed)
    (directory / CA_FILE).write_bytes(certificate)


def _keytool(store: Path, alias: str, action: str, *arguments: str, stdin: bytes = b"") -> bytes:
    target = ("-keystore", str(store), "-storetype", "PKCS12", "-storepass", STORE_PASSWORD, "-alias", alias)
    done = subprocess.run([java.tool("keytool"), *_FAST, action, *target, *arguments], input=stdin, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"keytool {action} failed: {(done.stdout + done.stderr).decode(errors='replace').strip()}")
    return done.stdout
