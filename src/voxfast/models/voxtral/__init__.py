"""Voxtral Realtime: from a checkpoint to a live stream."""
