"""Everything Sidecar knows and decides, as values: no clock, no I/O, no logging, the standard library only."""
