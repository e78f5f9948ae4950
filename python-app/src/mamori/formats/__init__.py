"""What host and device must agree on: file formats, and how bad input is reported. No I/O beyond reading a named file."""
