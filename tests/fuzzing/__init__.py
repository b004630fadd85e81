"""Mutated input for everything that takes bytes: see tools/fuzz.py and tests/test_fuzzing.py."""
