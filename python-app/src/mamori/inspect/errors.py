"""The one error that the parsers of the inspection core share."""


class ParseError(Exception):
    """These bytes are not what the parser reads. Hostile input gives no other exception; each parser raises its own subclass."""
