"""The only code that touches sockets of calls: a client with a pool, and a threaded server."""
