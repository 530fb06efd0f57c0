"""The LAN: its interfaces, its neighbour table, and the datagrams that peers find each other by."""
