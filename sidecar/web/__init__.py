"""The HTTP side: what senders, people and programs reach."""
