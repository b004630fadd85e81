"""Makes voxtral-numbers and qwen3-asr-numbers from synthetic speech; see README.md."""
