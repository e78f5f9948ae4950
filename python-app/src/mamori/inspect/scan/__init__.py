"""Virus scanning: whole files by their hash, and everything through clamd. `scanner.Scanner` is what callers use."""
