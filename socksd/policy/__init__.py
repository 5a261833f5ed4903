"""May they? Facts in, decision out: no I/O, no Twisted."""
