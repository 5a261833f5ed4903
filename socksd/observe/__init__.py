"""What happened? Events into lines."""
