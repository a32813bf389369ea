"""`python -m bench`: measure what a sender, a user and an operator notice; see README.md beside this file."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.accept.measure import measure_accepting
from bench.accept.process import ROOT
from bench.downtime.measure import measure_downtime


def main() -> int:
    """Run what is asked for and print the tables."""
    arguments = _parser().parse_args()
    if arguments.only != "accept" and not arguments.no_daemon:
        with tempfile.TemporaryDirectory(prefix="sidecar-bench-", dir=arguments.folder) as name:
            print(measure_downtime(Path(name), arguments.runs))
    if arguments.only != "downtime":
        measure_accepting(arguments)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each design (default 5)")
    parser.add_argument("--seconds", type=int, default=5, help="length of a run (default 5)")
    parser.add_argument("--connections", type=int, default=32, help="open connections (default 32)")
    parser.add_argument("--only", choices=["accept", "downtime"], help="measure one thing (default: everything)")
    parser.add_argument("--no-daemon", action="store_true", help="leave out what needs an engine")
    parser.add_argument("--folder", type=Path, help="where the journal is written (default: the temporary folder)")
    parser.add_argument(
        "--bench-python",
        type=Path,
        default=ROOT / ".cache/bench/bin/python",
        help="a Python with requirements/bench.txt",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
