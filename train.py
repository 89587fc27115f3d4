"""Train a language model on your own text: `python train.py FILE`.

The same as `python -m textgen train`; `--help` lists the settings.
"""

import sys

from textgen.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]], prog="python train.py"))
