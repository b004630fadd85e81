"""One package per model family, from checkpoint to live stream, and what families share."""
