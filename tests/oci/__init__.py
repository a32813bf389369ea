"""Tests of the wire side of OCI distribution, and the servers that play registries."""
