# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: BSD-2-Clause
# Private to hsmops.primus: may change without notice.
"""Query a PKCS#11 library with python-pkcs11, in a process of its own, because a library may crash or hang.

The process is a fork, so that the PIN is neither in the arguments nor in the environment of any process.
"""

import multiprocessing
import os
import re
import resource
import signal
import typing as t

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.hsmops.primus.plugins.module_utils._ppin.errors import PpinError, find_return_value

try:
    import pkcs11
except ImportError:
    pkcs11 = None  # type: ignore[assignment]  # query_library() reports it

CLASSES = ("DATA", "CERTIFICATE", "PUBLIC_KEY", "PRIVATE_KEY", "SECRET_KEY", "DOMAIN_PARAMETERS")

_PIN_HINT = (
    "Check the PIN (the PKCS#11 password) before the next run: too many wrong ones lock the privileged access of this "
    "partition for all its clients."
)
_REFUSING_FLAGS = ("USER_PIN_LOCKED", "USER_PIN_FINAL_TRY", "USER_PIN_COUNT_LOW")
_DATA = b"a text to sign"


class Request(t.NamedTuple):
    """What to query. `login` is None when no login is to be made."""

    library: str
    environment: t.Dict[str, str]
    mechanisms: bool
    login: t.Optional["Login"]


class Login(t.NamedTuple):
    """A PIN and the token that it is for. round_trip: sign and verify; force: ignore the flags of the token."""

    pin: str
    slot_id: t.Optional[int]
    token_label: t.Optional[str]
    round_trip: bool
    force: bool


def query_library(request: Request, timeout: float, facts: t.Dict[str, t.Any]) -> None:
    """Fill `facts` with `library`, `slots`, `login` and `logins`. :raises PpinError: some of them may be set then.

    :arg timeout: seconds to wait for each part of the answer.
    """
    if not os.path.isfile(request.library):
        raise PpinError(
            "There is no PKCS#11 library %s" % request.library,
            cls="config",
            hint="Install the Primus PKCS#11 provider, or set library to the path of its library.",
        )
    if pkcs11 is None:
        raise PpinError(
            missing_required_lib("python-pkcs11"), cls="config", hint="Install it for this Python on the host."
        )
    fork = multiprocessing.get_context("fork")
    parent_end, child_end = fork.Pipe(duplex=False)
    process = fork.Process(target=_run_in_child, args=(request, child_end))
    process.start()
    child_end.close()
    try:
        while parent_end.poll(timeout):
            kind, content = parent_end.recv()
            if kind == "error":
                raise PpinError(*content)
            facts.update(content)
            if kind == "end":
                return
        raise PpinError(
            "The PKCS#11 library %s timed out after %d seconds without an answer" % (request.library, timeout),
            cls="timeout",
        )
    except EOFError:
        process.join()
        raise PpinError(
            "The PKCS#11 library %s ended its process (%s)" % (request.library, _describe_exit(process.exitcode)),
            hint="This is a bug in the library: try it with another program, and report it to its vendor.",
        ) from None
    finally:
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        process.join()


def _describe_exit(status: t.Optional[int]) -> str:
    return "signal %d" % -status if status is not None and status < 0 else "exit status %s" % status


# In the child process


def _run_in_child(request: Request, connection: t.Any) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would contain the PIN
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # output of the library would corrupt the module's result
        os.dup2(null, stream)
    os.environ.update(request.environment)
    try:
        _query(request, lambda content: connection.send(("facts", content)))
        connection.send(("end", {}))
    except PpinError as exc:
        connection.send(("error", (exc.msg, exc.code, exc.cls, exc.hint)))
    except (pkcs11.exceptions.PKCS11Error, RuntimeError, OSError) as exc:
        problem = "The PKCS#11 library %s cannot be used: %s" % (request.library, _return_value_name(exc))
        connection.send(("error", (problem, None, None, "Is it a PKCS#11 library, and is it configured?")))


def _query(request: Request, send: t.Callable[[t.Dict[str, t.Any]], None]) -> None:
    library = pkcs11.lib(request.library)
    send(
        {
            "library": {
                "path": request.library,
                "manufacturer": _text(library.manufacturer_id),
                "description": _text(library.library_description),
                "version": _version(library.library_version),
                "cryptoki_version": _version(library.cryptoki_version),
            }
        }
    )
    slots = library.get_slots()
    tokens = [_token(slot) for slot in slots]
    send({"slots": [_slot_facts(slot, token, request.mechanisms) for slot, token in zip(slots, tokens)]})
    if request.login:
        wanted = request.login
        found = [
            token
            for slot, token in zip(slots, tokens)
            if token is not None
            and wanted.slot_id in (None, slot.slot_id)
            and wanted.token_label in (None, _text(token.label))
        ]
        if len(found) != 1:
            known = ["'%s' in slot %d" % (_text(token.label), token.slot.slot_id) for token in tokens if token]
            raise PpinError(
                "%d tokens match, exactly one must; there are %s" % (len(found), ", ".join(known) or "none"),
                cls="config",
                hint="Name one token with slot_id or token_label. The PIN was not tried.",
            )
        _check_flags(found[0], wanted.force)
        send({"login": _log_in(found[0], wanted, send)})


def _log_in(token: t.Any, wanted: Login, send: t.Callable[[t.Dict[str, t.Any]], None]) -> t.Dict[str, t.Any]:
    token.open().close()  # an error here is not about the PIN
    send({"logins": 1})
    try:
        session = token.open(user_pin=wanted.pin)
    except pkcs11.exceptions.PKCS11Error as exc:
        problem = "The login to the token '%s' failed: %s" % (_text(token.label), _return_value_name(exc))
        error = PpinError(problem, find_return_value(_return_value_name(exc)))
        raise PpinError(problem, error.code, error.cls, _PIN_HINT if error.may_be_evaluated else None) from None
    with session:
        objects = {
            cls.lower(): sum(1 for _object in session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass[cls]}))
            for cls in CLASSES
        }
        return {
            "slot_id": token.slot.slot_id,
            "token_label": _text(token.label),
            "objects": objects,
            "round_trip": _round_trip(session) if wanted.round_trip else None,
        }


def _round_trip(session: t.Any) -> t.Dict[str, t.Any]:
    """Sign with a new key of this session, and verify the signature."""
    mechanism = pkcs11.Mechanism.SHA256_RSA_PKCS
    try:
        public, private = session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=False)
        signature = private.sign(_DATA, mechanism=mechanism)
        verified = public.verify(_DATA, signature, mechanism=mechanism)
        refused = not public.verify(_DATA + b".", signature, mechanism=mechanism)
        problem = None if verified and refused else "the signature was not verified as expected"
    except pkcs11.exceptions.PKCS11Error as exc:
        problem = _return_value_name(exc)
    return {"ok": problem is None, "mechanism": mechanism.name, "error": problem}


def _check_flags(token: t.Any, force: bool) -> None:
    """:raises PpinError: when the PIN must not be tried."""
    flags = _flags(token.flags)
    if "USER_PIN_INITIALIZED" not in flags:
        raise PpinError(
            "The token '%s' has no user PIN" % _text(token.label), cls="config", hint="Set a user PIN, then run again."
        )
    refusing = [flag for flag in _REFUSING_FLAGS if flag in flags]
    if refusing and not force:
        raise PpinError(
            "The token '%s' says %s: wrong PINs were tried" % (_text(token.label), " and ".join(refusing)),
            cls="refused",
            hint="The PIN was not tried. Make sure that it is right, then set force to true; a login that works resets "
            "the count. One that is locked is unlocked at the HSM.",
        )


# Facts


def _token(slot: t.Any) -> t.Any:
    try:
        return slot.get_token()
    except (pkcs11.exceptions.TokenNotPresent, pkcs11.exceptions.TokenNotRecognised):
        return None


def _slot_facts(slot: t.Any, token: t.Any, mechanisms: bool) -> t.Dict[str, t.Any]:
    facts = {
        "slot_id": slot.slot_id,
        "description": _text(slot.slot_description),
        "manufacturer": _text(slot.manufacturer_id),
        "hardware_version": _version(slot.hardware_version),
        "firmware_version": _version(slot.firmware_version),
        "flags": _flags(slot.flags),
        "token": None
        if token is None
        else {
            "label": _text(token.label),
            "manufacturer": _text(token.manufacturer_id),
            "model": _text(token.model),
            "serial": _text(token.serial),
            "hardware_version": _version(token.hardware_version),
            "firmware_version": _version(token.firmware_version),
            "flags": _flags(token.flags),
        },
    }
    if mechanisms and token is not None:
        facts["mechanisms"] = sorted(getattr(item, "name", None) or "0x%08X" % item for item in slot.get_mechanisms())
    return facts


def _text(value: t.Any) -> str:
    """Decode a text field of PKCS#11, which is padded with blanks, by some libraries with NUL."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.rstrip(" \0")


def _version(value: t.Any) -> str:
    return ".".join(str(part) for part in value)


def _flags(value: t.Any) -> t.List[str]:
    return [flag.name for flag in type(value) if value & flag]


def _return_value_name(exc: BaseException) -> str:
    """Return the name of the PKCS#11 return value of an exception: `CKR_PIN_INCORRECT` for PinIncorrect."""
    if not isinstance(exc, pkcs11.exceptions.PKCS11Error):
        return "%s" % exc
    name = type(exc).__name__
    if name == "PKCS11Error":
        return str(exc) or name
    return "CKR_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper().replace("RECOGNISED", "RECOGNIZED")
