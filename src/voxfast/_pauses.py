"""Pauses that end a turn, where users name them."""

ENDPOINT_MS = (32, 60_000)
"""The shortest, one frame of the detector, and the longest, in milliseconds."""
