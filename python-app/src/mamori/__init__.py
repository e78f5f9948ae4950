"""Mamori: firmware for a transparent bridge that protects a small office."""

__version__ = "0.1.0"
"""Of the application alone. An image's version is in its release file (`mamori.formats.release`)."""
