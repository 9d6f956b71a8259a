# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Primus HSM, its service proxy and the ppin command, for tests."""
