"""A release folder, checked from the signature down to the last verity block, and the first thing that is wrong named.

Nothing is believed before it is proven: the signature vouches for the checksums, they for every file, and then what is
*inside* the files is compared: with the build record, with the board's layout, and disk and bundle with each other. The
disk image is looked at as it will lie on a disk: flashed, by bmaptool, into a file.

No private key is needed. The anchors are those of the keyset that the recipe names.
"""

from firmware.verify.release import Check, Releasable, read_releasable, verify_release

__all__ = ["Check", "Releasable", "read_releasable", "verify_release"]
