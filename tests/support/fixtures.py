# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of all tests, and a Redis, for each conftest to import."""

import contextlib
import os
import shutil
import socket
import subprocess

import pytest
from emulated_hsm import wait_for
from hypothesis import HealthCheck, settings

os.environ["LC_ALL"] = "C.UTF-8"  # as ansible-test does: Ansible does not start where the encoding is another

# The duration of an example depends on the machine, and a failure reports all that is needed to reproduce it.
settings.register_profile("tests", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    """A Redis of its own behind a socket, as a URL."""
    pytest.importorskip("redis")
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed")
    folder = tmp_path_factory.mktemp("redis")
    options = ["--port", "0", "--unixsocket", str(folder / "socket"), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([server, *options], stdout=subprocess.DEVNULL)

    def listens():  # which is later than that the socket is there
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "socket"))
            return True

    wait_for(listens, process)
    yield f"unix://{folder}/socket"
    process.terminate()
    process.wait(10)


@pytest.fixture
def redis_url(redis_server):
    """The address of an empty Redis."""
    import redis

    redis.Redis.from_url(redis_server).flushall()
    return redis_server
