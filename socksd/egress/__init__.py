"""How do we get there? Names to addresses, addresses to connections."""
