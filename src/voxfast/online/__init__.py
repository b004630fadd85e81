"""Live streams: audio in, words with times out. All state of a stream lives here."""
