# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The output of `ppin --test`, in both published forms."""

from . import codes

FORMS = {
    "quoted": {
        "connect": "%s: Connect to '%s' on port %d",
        "firmware": "%s, firmware: %s ",
        "indent": 4,
        "failure": "paren",
        "counters": "on",
    },
    "plain": {
        "connect": "%s: Connect to %s port %d",
        "firmware": "%s, firmware: %s",
        "indent": 10,
        "failure": "ckr",
        "counters": "off",
    },
}
SLOT_FAILURES = {
    "paren": "FAILED ({code})",
    "colon": "ERROR: {code}",
    "text": "login failed, error {code}",
    "ckr": "{name}",
    "token_not_present": codes.pkcs11_name(codes.TOKEN_NOT_PRESENT),
}
HSM_FAILURES = {
    "colon_code": "{connect} failed: {code}",
    "bare": "{connect} failed",
    "code_paren": "{connect} failed ({code})",
    "name": "{connect}: {name}",
}


class ConnectionTest:
    """Prints the lines of one --test as its results come, and counts."""

    def __init__(self, switches, output, config_path):
        self._switches = switches
        self._output = output
        self._form = FORMS[switches.test_form]
        self._hsms = self._partitions = self._failures = 0
        output.line("Load config file: '%s'" % config_path)
        output.line()

    def hsm(self, hsm, firmware):
        """An HSM that answered; its slots follow."""
        self._begin(self._form["firmware"] % (self._connect(hsm), firmware))

    def hsm_failed(self, hsm, slots, error):
        """An HSM without a connection, and its slots that were to be tested."""
        way = self._switches.test_hsm_failure
        if way == "no_line":
            return
        if way in HSM_FAILURES:
            self._begin(self._worded(HSM_FAILURES[way], error.code, connect=self._connect(hsm)))
            self._failures += 1
            return
        if way == "firmware_unknown":
            self.hsm(hsm, "unknown")
        else:
            self._begin(self._connect(hsm))
        for slot in slots:
            self._slot(slot, SLOT_FAILURES["token_not_present"])

    def slot(self, slot, error=None):
        """A slot of the last HSM. error: a PpinError, or None when its login worked."""
        way = self._switches.test_failure
        wording = SLOT_FAILURES[self._form["failure"] if way == "form" else way]
        self._slot(slot, "OK" if error is None else self._worded(wording, error.code))

    def end(self):
        """Print the counters, if there are any; returns whether nothing failed."""
        way = self._switches.test_counters
        if (self._form["counters"] if way == "form" else way) == "on":
            self._separate()
            self._output.line("Number of tested HSMs: %d (number of partitions: %d)" % (self._hsms, self._partitions))
            self._output.line("Number of failures: %d" % self._failures)
        return not self._failures

    def _begin(self, line):
        self._separate()
        self._output.line(line)
        self._hsms += 1

    def _separate(self):
        if self._hsms:
            self._output.line()

    def _slot(self, slot, verdict):
        self._partitions += 1
        self._failures += verdict != "OK"
        name = "%s (id=%s), user=%s" % (slot.name, self._output.slot_id(slot.id), slot.user)
        self._output.line("%s%s: %s" % (" " * self._form["indent"], name, verdict))

    def _connect(self, hsm):
        return self._form["connect"] % (hsm.name, hsm.host, hsm.port)

    def _worded(self, wording, code, **more):
        return wording.format(code=self._output.code(code), name=codes.pkcs11_name(code), **more)
