"""The test virus, and a marker of our own. EICAR's 68 bytes are nowhere in one piece: a scanner may look at this checkout too."""

from __future__ import annotations

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR" + b"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
EICAR_NAME = "Mamori.Test.Eicar"

MARKER = b"mamori-test-marker-5d0c93a1e7"
MARKER_NAME = "Mamori.Test.Marker"


def signatures(database: str = "") -> str:
    """An .ndb file (name:any file:any offset:hexadecimal) with both, and with the name of the database if it has one."""
    from mamori.inspect.scan.clamd import DATABASE_PROBE

    lines = [f"{EICAR_NAME}:0:0:{EICAR.hex()}", f"{MARKER_NAME}:0:*:{MARKER.hex()}"]
    return "\n".join([*lines, *([f"{database}:0:0:{DATABASE_PROBE.hex()}"] if database else [])]) + "\n"
