"""voxtral-numbers: architecture, file layout and tokenizer format of Voxtral Realtime."""
