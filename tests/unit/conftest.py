# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing here starts the emulator or a playbook: `ansible-test units` runs these tests as well as pytest."""

import sys
from pathlib import Path

# For ansible-test, which does not read pyproject.toml.
sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("support", "emulator")]

from fixtures import redis_server, redis_url  # noqa: E402, F401  # pylint: disable=unused-import
