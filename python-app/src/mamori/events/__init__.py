"""Events and statistics: what happened on the wire, to whom, and how often."""
