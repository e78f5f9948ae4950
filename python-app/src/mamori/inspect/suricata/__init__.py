"""Suricata, the signature engine: its configuration, its rules, its control socket and what it tells."""
