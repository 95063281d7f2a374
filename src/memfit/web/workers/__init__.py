"""Processes that plan for the server."""
