"""`python -m bench`: measure what a sender and an operator notice; see README.md beside this file."""

import sys

from bench.accept.measure import main

sys.exit(main())
