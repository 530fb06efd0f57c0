"""The LAN: its interfaces, its neighbour table, and the datagrams by which peers find each
other."""
