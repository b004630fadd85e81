"""The parts that all live streams share: sessions, the owner thread, queues and clocks."""
