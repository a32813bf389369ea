"""Senders of webhooks: one file each, from headers and body to hints. Nothing here does I/O or reads a clock."""
