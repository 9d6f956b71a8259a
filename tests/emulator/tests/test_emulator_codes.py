# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error codes, as published."""

from primus_emulator import codes

PUBLISHED = """\
0x000000E0 CKR_TOKEN_NOT_PRESENT: no HSM of any priority reachable for the slot
0x80000001 unexpected data type
0x80000002 buffer too small
0x80000003 duplicate entry
0x80000004 no more keys
0x80000005 public key not found
0x80000006 private key not found
0x80000008 invalid block cipher
0x80000009 invalid mechanism
0x8000000A object not found
0x8000000B login failed, wrong PKCS#11 PIN
0x8000000C user not logged in
0x8000000D user not found
0x8000000E wrong password for the key
0x80000012 key not found
0x80000018 maximum number of connections exceeded
0x8000002A key import not allowed
0x80000037 password expired
0x8000003B connect timeout
0x80000058 EC curve unknown
0x8000005F session objects disabled by HSM configuration
0x80000069 access to the partition disabled by HSM configuration
0x80000084 DL group unknown
0x80000085 PQC mode unknown
0x80005001 no HSM or user configured
0x80005002 HSM or user configuration already exists
0x80005003 primus.cfg not found
0x80005004 .secrets.cfg not found
0x80005005 primus.cfg invalid
0x80005006 .secrets.cfg invalid
0x80005007 no write access to .secrets.cfg
0x80005008 failed to add the permanent secret to .secrets.cfg
0x80005009 invalid element in .secrets.cfg
0x80005010 failed to update .secrets.cfg
0x80005011 failed to remove the permanent secret from .secrets.cfg
0x80005012 user not found in primus.cfg
0x80005013 unsupported secret types
0x80005014 NULL list pointer
0x80005015 connection to the HSM failed (network, address not reachable)
0x80005017 login to the HSM failed with the credentials given (setup password)
0x80005018 setup password expired
0x80005019 access to the partition disabled by HSM configuration
"""


def test_every_published_code_has_its_meaning():
    listed = dict(line.split(" ", 1) for line in PUBLISHED.splitlines())
    assert {codes.text(code): meaning for code, meaning in codes.MEANING.items()} == listed


def test_every_code_of_the_emulator_is_published():
    named = {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, int)}
    assert named - {codes.OK} <= codes.MEANING.keys()
