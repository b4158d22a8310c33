"""`python -m utils.models merge ADAPTER FOLDER`: see `merging`."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] != ["merge"]:
        sys.exit("usage: python -m utils.models merge ADAPTER FOLDER")
    from .merging import main

    main(sys.argv[2:])
