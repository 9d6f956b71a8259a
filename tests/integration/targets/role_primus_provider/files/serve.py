# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve a directory over HTTP on the loopback, in the background, for ten minutes at most: serve.py DIRECTORY.

Prints {"pid": …, "url": …}.
"""

import json
import os
import signal
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=sys.argv[1]))
pid = os.fork()
if pid:
    print(json.dumps({"pid": pid, "url": f"http://127.0.0.1:{server.server_port}"}))
    sys.exit()
os.setsid()
nothing = os.open(os.devnull, os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(nothing, stream)
signal.alarm(600)
server.serve_forever()
