"""From a base's root file system to the two artefacts that leave the house: a disk image and a bundle."""
