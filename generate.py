"""Generate text with a trained model: `python generate.py RUN --prompt "Once"`.

The same as `python -m textgen generate`; `--help` lists the settings.
"""

import sys

from textgen.cli import main

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]], prog="python generate.py"))
