"""Makes a small Voxtral Realtime checkpoint from synthetic speech; see README.md."""
