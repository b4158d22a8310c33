"""`python -m utils.models merge ADAPTER FOLDER`: see `merging`."""

import sys

from .merging import main

if __name__ == "__main__":
    if sys.argv[1:2] != ["merge"]:
        sys.exit("usage: python -m utils.models merge ADAPTER FOLDER")
    main(sys.argv[2:])
