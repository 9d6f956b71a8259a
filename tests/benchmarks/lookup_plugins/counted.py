# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A secret manager that counts how often it is asked: lookup('counted', what, its value)."""

from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **options):
        what, value = terms
        with open("asked.txt", "a") as asked:  # in the directory in which ansible-playbook runs
            asked.write(what + "\n")
        return [value]
