"""Each adapter against its real part: engines and registries of `tests.testbed`."""
