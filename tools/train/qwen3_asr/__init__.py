"""qwen3-asr-numbers: architecture, file layout and tokenizer format of Qwen3-ASR."""
