"""How bytes travel: connected sockets, by carrier, and TLS as a filter over any of them."""
