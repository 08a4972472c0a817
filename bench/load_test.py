#!/usr/bin/env python3
"""The load test as a script: ``bench/load_test.py MODULE:ATTR [ARGS...] [options]``.

The same as ``python -m offgil loadtest``; ``--help`` tells all about it.
"""

import sys

from offgil import __main__

if __name__ == "__main__":
    sys.exit(__main__.main(["loadtest", *sys.argv[1:]]))
