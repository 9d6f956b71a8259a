# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An output of ppin as its vendor has published it."""

FETCHLOG = """\
Dump log starting from 2021-04-01 00:00 UTC
Fetching log from HSM.
Number of slots: 1
2021 Apr  1 09:31:28 UTC NUFENEN notice MSCNG Process: Login request: User: DEMO-TEST Client: \
SecurosysKspCfg@W10C-TESTCLIENT@192.0.2.76@00:0c:29:73:e6:7b with setup password over TCP connection 536870926 \
(IP 198.51.100.194:31550)
2021 Apr  1 09:31:28 UTC NUFENEN info MSCNG Process: Login successful: User: DEMO-TEST Client: \
SecurosysKspCfg@W10C-TESTCLIENT@192.0.2.76@00:0c:29:73:e6:7b over TCP connection 0x2000000e (IP 198.51.100.194:31550)
2021 Apr  1 09:31:29 UTC NUFENEN notice Crypto Process: Interaction: User: DEMO-TEST, Client: \
SecurosysKspCfg@W10C-TESTCLIENT@192.0.2.76@00:0c:29:73:e6:7b, Protocol: mscng, Retrieved permanent login credentials
2021 Apr  1 09:35:47 UTC NUFENEN err Crypto Process: Error: Command: CommandGetKeyFlag, User: DEMO-TEST, Client: \
hsmcons@W10C-TESTCLIENT@192.0.2.76@00:0c:29:73:e6:7b, Protocol: mscng, 0x12 (C_GetAttributeValue: Requested attribute \
type is not valid)
2021 Apr  1 09:35:48 UTC NUFENEN err Crypto message repeated 11 times: [ Process: Error: Command: CommandGetKeyFlag, \
User: DEMO-TEST, Client: hsmcons@W10C-TESTCLIENT@192.0.2.76@00:0c:29:73:e6:7b, Protocol: mscng, 0x12 \
(C_GetAttributeValue: Requested attribute type is not valid)]
"""
