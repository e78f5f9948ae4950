"""Our own thin binding to the kernel's packet queue: a codec, checksums and rules that are pure, and one module of I/O."""
