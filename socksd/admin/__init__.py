"""How is it doing? JSON over a socket, and the client that asks."""
