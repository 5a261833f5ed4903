"""What was said? Octets to messages and back: no I/O, no Twisted."""
