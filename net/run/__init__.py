"""Calls over connections: a client with a pool, a threaded server, and the loop."""
