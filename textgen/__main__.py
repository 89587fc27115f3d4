"""`python -m textgen COMMAND`."""

import sys

from textgen.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], prog="python -m textgen"))
