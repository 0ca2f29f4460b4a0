"""The central store: runs and what is derived from events (sqlite), and the bytes of streams (blobs)."""
