"""`python -m rerank_server`: the sidecar with the settings of the environment and of BRIDGE_CONFIG."""

import sys

from bridge.errors import BridgeError, exit_code
from bridge.settings import load_settings
from rerank_server.server import run

if __name__ == "__main__":
    try:
        run(load_settings().sidecar)
    except BridgeError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(exit_code(error))
