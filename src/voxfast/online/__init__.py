"""What all live streams share: sessions, the owner thread, queues and clocks. Knows no family."""
