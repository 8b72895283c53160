"""Checkpoints of known networks: fetched, recognised, converted and kept in a folder of their own."""
