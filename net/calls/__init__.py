"""The other ways to make a call: awaited, started, on many peers. Faces over the client."""
