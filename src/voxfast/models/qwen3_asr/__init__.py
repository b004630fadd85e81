"""Qwen3-ASR with AlignAtt: from a checkpoint to a live stream."""
