"""The connections and flags that every peer has."""
