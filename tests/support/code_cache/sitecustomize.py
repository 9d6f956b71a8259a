# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the compiled code of modules, for playbook runs that have this directory in PYTHONPATH.

Ansible sends a module as a zip archive, from which Python compiles every file anew for every host and task. That is a
quarter of the processor time of a run, and none of these tests is about it.
"""

import contextlib
import hashlib
import marshal
import os
import sys
import zipimport

CACHE = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "../../../build/code_cache", sys.implementation.cache_tag
)


def keep(compile_source):
    def cached(pathname, source):
        key = hashlib.sha256(os.path.basename(pathname).encode() + b"\0" + source).hexdigest()
        path = os.path.join(CACHE, key)
        with contextlib.suppress(OSError, EOFError, ValueError, TypeError), open(path, "rb") as file:
            return marshal.load(file)  # noqa: S302
        code = compile_source(pathname, source)
        new = "%s.%d" % (path, os.getpid())
        with contextlib.suppress(OSError):
            os.makedirs(CACHE, exist_ok=True)
            with open(new, "wb") as file:
                marshal.dump(code, file)
            os.replace(new, path)
        return code

    return cached


if hasattr(zipimport, "_compile_source"):  # zipimport is in C before Python 3.8
    zipimport._compile_source = keep(zipimport._compile_source)
