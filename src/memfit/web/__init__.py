"""The local page: a server on loopback, its worker processes, and what it reads from disk."""
