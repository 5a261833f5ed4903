"""Does a SOCKS5 server, ours or another, do what the RFCs say? Octets on blocking sockets."""
