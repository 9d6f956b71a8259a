# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""SoftHSM2 as Debian installs it, in the place of the provider's PKCS#11 library."""

import shutil
import subprocess
from pathlib import Path

import pytest

LIBRARY = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN, WRONG_PIN = "pin-of-the-token", "wrong-pin-of-the-token"


def make_token(folder: Path, monkeypatch):
    """Have SoftHSM2 keep its tokens in a directory, and make one there: P1, with PIN."""
    if not LIBRARY.exists() or not shutil.which("softhsm2-util"):
        pytest.skip("softhsm2 is not installed")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
    command = ["softhsm2-util", "--init-token", "--free", "--label", "P1", "--so-pin", "so-pin", "--pin", PIN]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
