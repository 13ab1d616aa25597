"""The official Python SDK, unmodified, against the emulator that MODAL_SERVER_URL names.

    MODAL_SERVER_URL=… MODAL_TOKEN_ID=ak-test MODAL_TOKEN_SECRET=as-test python run.py [WORD…]

Words choose the checks whose module, function or text contains one of them.
"""

import sys

import checks_chaos  # noqa: F401
import checks_exec  # noqa: F401
import checks_files  # noqa: F401
import checks_images  # noqa: F401
import checks_lifecycle  # noqa: F401
import checks_resources  # noqa: F401
import harness

if __name__ == "__main__":
    sys.exit(harness.main(sys.argv[1:]))
