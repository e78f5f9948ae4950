"""Mamori: firmware for a transparent bridge that protects a small office."""
