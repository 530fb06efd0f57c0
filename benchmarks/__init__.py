"""app-net compared with what one would use instead: the same work, in one run, pinned alike.

``python -m benchmarks`` runs it; README.rst says how to read what comes out.
"""
