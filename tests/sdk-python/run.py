"""The official Python SDK, unmodified, against the emulator that MODAL_SERVER_URL names.

    MODAL_SERVER_URL=… MODAL_TOKEN_ID=ak-test MODAL_TOKEN_SECRET=as-test python run.py [WORD…]

Runs every `checks_*.py` beside it. Words choose the checks whose module, function or text contains one of them.
"""

import importlib
import pathlib
import sys

import harness

if __name__ == "__main__":
    for file in sorted(pathlib.Path(__file__).parent.glob("checks_*.py")):
        importlib.import_module(file.stem)
    sys.exit(harness.main(sys.argv[1:]))
