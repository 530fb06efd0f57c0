"""Bytes to values and back. Nothing in here touches a socket or a thread."""
