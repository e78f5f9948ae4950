"""Hypothesis for a shared machine: no deadline for one example, since a busy neighbour is no bug; nothing kept on disk."""

from hypothesis import settings

settings.register_profile("mamori", deadline=None, database=None, print_blob=True)
settings.load_profile("mamori")
