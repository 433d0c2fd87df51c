"""What programs of Unix write to syslog: who, from where, and how it went.

Read are the messages of these, as their sources write them:

    sshd            OpenSSH: auth.c, auth2.c, auth-pam.c, packet.c, sshd.c, canohost.c
    PAM             pam_unix (support.c, pam_unix_sess.c, pam_unix_passwd.c), pam_faillock; pam_sss
                    and pam_krb5 write the same of a failure; whatever program loads them
    sudo            lib/eventlog/eventlog.c (an agent of Log Analytics makes blanks of its `;`)
    su, login       those of util-linux and of shadow
    useradd, …      shadow: useradd.c, userdel.c, usermod.c, groupadd.c, gpasswd.c, …
    systemd-logind  logind-session.c
    cron            `(user) CMD (command)`
    kernel          nf_log_syslog.c: what the rule of a firewall logs (UFW, iptables, nftables)

A name that somebody sent may look like the rest of a message, so what follows a name is looked for
from the end. Patterns are bounded, and long messages are left alone: time is linear.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from schemas.entities import Entity, Role
from schemas.kinds import _entities
from schemas.kinds._things import numeric, process

__all__ = ["Said", "understand"]

Outcome = Literal["", "success", "failure"]

_MOST = 4096  # characters of a message


class Said(NamedTuple):
    """action: the message's own words. attributes: of a session, a terminal, a repetition, …"""

    action: str
    outcome: Outcome
    entities: tuple[Entity, ...]
    attributes: dict[str, str]


_NOTHING = Said("", "", (), {})

# A pattern's groups: `by` did it to `user`; from `ip`, `port`, or a `name`; `to` an address.
_USER = r"(?P<user>.{0,256})"
_WORD = r"(?P<user>\S{1,256})"
_PLACE = r"(?P<ip>\S{1,255})"
_FROM = rf"from {_PLACE} port (?P<port>\d{{1,5}})"
_MAYBE_PORT = r"(?: port (?P<port>\d{1,5}))?"
_NUMERIC = r"(?P<ip>[\w.:%-]{2,255}?)"
_SEPARATOR = r"[ ;]{1,4}"
_SUDO = (
    rf"(?:HOST=\S{{1,255}}{_SEPARATOR})?TTY=(?P<tty>\S{{1,64}}){_SEPARATOR}"
    rf"(?:CHROOT=.{{0,512}}?{_SEPARATOR})?PWD=(?P<pwd>.{{0,1024}}?){_SEPARATOR}"
    rf"USER={_WORD}(?:{_SEPARATOR}GROUP=(?P<group>\S{{1,256}}))?"
    rf"(?:{_SEPARATOR}TSID=\S{{1,64}})?(?:{_SEPARATOR}ENV=.{{0,1024}}?)?"
    rf"{_SEPARATOR}COMMAND=(?P<command>.*)"
)

_RULES: dict[str, tuple[tuple[str, Outcome], ...]] = {
    "sshd": (
        (rf"(?P<action>Accepted \S{{1,64}}) for {_USER} {_FROM}(?: ssh\d?)?(?:: .*)?", "success"),
        (
            r"(?P<action>Failed \S{1,64}) for (?:(?:invalid|illegal) user )?"
            rf"{_USER} {_FROM}(?: ssh\d?)?(?:: .*)?",
            "failure",
        ),
        (
            r"(?P<action>(?:Postponed|Partial) \S{1,64}) for (?:invalid user )?"
            rf"{_USER} {_FROM}(?: ssh\d?)?(?:: .*)?",
            "",
        ),
        (rf"(?P<action>(?:Invalid|Illegal) user) {_USER} from {_PLACE}{_MAYBE_PORT}", "failure"),
        (rf"input_userauth_request: (?P<action>invalid user) {_USER}", "failure"),
        (rf"User {_USER} from {_PLACE} (?P<action>not allowed) because .*", "failure"),
        (rf"User {_WORD} (?P<action>not allowed) because .*", "failure"),
        (
            r"(?P<action>maximum authentication attempts exceeded) for (?:invalid user )?"
            rf"{_USER} {_FROM}(?: ssh\d?)?",
            "failure",
        ),
        (
            r"Disconnecting: (?P<action>Too many authentication failures)"
            rf"(?: for {_USER})?",
            "failure",
        ),
        (
            r"PAM: (?P<action>.{1,64}?) for (?:(?:invalid|illegal) user )?"
            rf"{_USER} from {_PLACE}",
            "failure",
        ),
        (
            r"(?P<action>Connection closed|Connection reset|Disconnected|Disconnecting)"
            rf"(?: by| from)?(?: authenticating| invalid)? user {_USER} {_NUMERIC}"
            r" port (?P<port>\d{1,5})(?:: .*)?",
            "",
        ),
        (
            r"(?P<action>Connection closed|Connection reset|Disconnected|Unable to negotiate"
            r"|Timeout before authentication)(?: by| from| with| for connection from| for) "
            rf"{_NUMERIC}{_MAYBE_PORT}(?:(?:: | to ).*)?",
            "",
        ),
        (
            rf"(?P<action>Received disconnect) from {_NUMERIC}"
            r"(?: port (?P<port>\d{1,5}):|: )\d{1,9}: .*",
            "",
        ),
        (
            rf"(?:[\w ]{{1,64}}: )?(?P<action>Connection) {_FROM}"
            r"(?: on (?P<to>\S{2,64}) port (?P<to_port>\d{1,5}))?.*",
            "",
        ),
        (
            r"(?P<action>Did not receive identification string|Bad protocol version identification)"
            rf"(?: '.{{0,256}}')? from {_PLACE}{_MAYBE_PORT}",
            "",
        ),
        (
            r"(?P<action>reverse mapping checking) getaddrinfo for (?P<name>\S{1,255})"
            r" \[(?P<ip>\S{2,64})\] failed.*",
            "",
        ),
        (r"Address (?P<ip>\S{2,64}) (?P<action>maps to) (?P<name>\S{1,255}), but .*", ""),
        (rf"(?P<action>Starting session): .{{0,2048}} for {_WORD} {_FROM}.*", "success"),
    ),
    "pam": (
        (
            r"(?:PAM )?(?:\d{1,9} more )?(?P<action>authentication failures?);"
            r" logname=(?P<by>\S{0,256}) uid=(?P<uid>-?\d{0,10}) euid=-?\d{0,10}"
            r" tty=(?P<tty>\S{0,64}) ruser=(?P<ruser>\S{0,256}) rhost=(?P<ip>\S{0,255})"
            rf"(?:\s{{1,4}}user={_USER})?",
            "failure",
        ),
        (
            r"(?P<action>session opened) for user (?P<user>[^\s(]{1,256})(?:\([^()]{0,64}\))?"
            r"(?: by (?P<by>[^\s(]{0,256})\(uid=(?P<uid>\d{1,10})\))?.*",
            "success",
        ),
        (rf"(?P<action>session closed) for user {_WORD}", "success"),
        (r"(?P<action>check pass); user (?:\((?P<user>.{0,256})\) )?unknown", "failure"),
        (r"(?P<action>bad username) \[(?P<user>.{0,256})\]", "failure"),
        (
            r"(?P<action>auth could not identify password) for \[(?P<user>.{0,256})\]",
            "failure",
        ),
        (rf"account {_WORD} (?P<action>has expired).*", "failure"),
        (rf"(?P<action>Consecutive login failures) for user {_WORD} account .*", "failure"),
        (rf"(?P<action>password changed) for {_WORD}", "success"),
    ),
    "sudo": (
        (rf"(?P<by>\S{{1,256}}) : {_SUDO}", "success"),
        (
            rf"(?P<by>\S{{1,256}}) : (?P<action>[^;=]{{1,256}}?){_SEPARATOR}{_SUDO}",
            "failure",
        ),
    ),
    "su": (
        (rf"\(to {_WORD}\) (?P<by>\S{{1,256}}) on (?P<tty>\S{{1,64}})", "success"),
        (
            rf"(?P<action>FAILED SU) \(to {_WORD}\) (?P<by>\S{{1,256}}) on (?P<tty>\S{{1,64}}).*",
            "failure",
        ),
        (rf"(?P<action>Successful su) for {_WORD} by (?P<by>\S{{1,256}})", "success"),
        (rf"(?P<action>FAILED su) for {_WORD} by (?P<by>\S{{1,256}})", "failure"),
        (r"\+ (?P<tty>\S{1,64}) (?P<by>[^\s:]{1,256}):(?P<user>[^\s:]{1,256})", "success"),
        (r"- (?P<tty>\S{1,64}) (?P<by>[^\s:]{1,256}):(?P<user>[^\s:]{1,256})", "failure"),
    ),
    "login": (
        (
            r"(?P<action>(?P<user>ROOT) LOGIN)\s{1,4}ON (?P<tty>\S{1,64})"
            rf"(?: FROM {_PLACE})?",
            "success",
        ),
        (
            rf"(?P<action>LOGIN) ON (?P<tty>\S{{1,64}}) BY {_WORD}(?: FROM {_PLACE})?",
            "success",
        ),
        (
            r"(?P<action>FAILED LOGIN|TOO MANY LOGIN TRIES) (?:\(?\d{1,9}\)?|SESSION)"
            rf" FROM {_PLACE} FOR {_USER}, .*",
            "failure",
        ),
    ),
    "shadow": (
        (r"(?P<action>new user): name=(?P<user>[^,]{1,256}), UID=(?P<uid>\d{1,10}),.*", "success"),
        (r"(?P<action>new group): name=(?P<group>[^,]{1,256}), GID=.*", "success"),
        (r"(?P<action>delete user) ['`](?P<user>[^'`]{1,256})'", "success"),
        (r"(?P<action>change user) ['`](?P<user>[^'`]{1,256})' .*", "success"),
        (
            r"(?P<action>add|delete) ['`](?P<user>[^'`]{1,256})' (?:to|from)"
            r" (?:shadow )?group ['`](?P<group>[^'`]{1,256})'.*",
            "success",
        ),
    ),
    "systemd-logind": (
        (
            r"(?P<action>New session) '?(?P<session_id>[^\s']{1,64})'? of user"
            r" '?(?P<user>[^\s']{1,256}?)'?(?:\.| with .*)",
            "success",
        ),
    ),
    "cron": ((r"\((?P<by>[^\s()]{1,256})\) (?P<action>CMD) \((?P<command>.*)\)", ""),),
    "kernel": (
        (
            r"(?:\[[\s\d]{1,9}\.\d{1,9}\] )?(?P<action>.{0,64}?)\s?IN=\S{0,64} OUT=\S{0,64} "
            r".{0,256}?SRC=(?P<ip>\S{2,64}) DST=(?P<to>\S{2,64}) .{0,256}?"
            r"PROTO=(?P<protocol>\S{1,16})"
            r"(?: SPT=(?P<port>\d{1,5}) DPT=(?P<to_port>\d{1,5}))?.*",
            "",
        ),
    ),
}
_FAMILIES = {
    **dict.fromkeys(("sshd-session", "sshd-auth"), "sshd"),
    **dict.fromkeys(("useradd", "userdel", "usermod", "groupadd", "groupdel"), "shadow"),
    **dict.fromkeys(("groupmod", "gpasswd", "passwd", "chpasswd", "newusers"), "shadow"),
    **dict.fromkeys(("crond", "anacron"), "cron"),
}
_REPEATED = re.compile(r"message repeated (\d{1,9}) times: \[ ?(.*)\]", re.DOTALL)
_PAM = re.compile(r"pam_\w{1,32}\([^()]{0,128}\): ")
_AROUND = re.compile(r"(?:(?:error|fatal): )?(.*?)(?: \[preauth\])?", re.DOTALL)
_NOBODY = frozenset({"", "login", "unknown", "(unknown)", "(null)"})


def understand(program: str, message: str) -> Said:
    """What a program's message says; nothing where it is none of the above. Never raises.

    program: as syslog names it: `sshd`, and on old systems `sshd(pam_unix)`.
    """
    if len(message) > _MOST:
        return _NOTHING
    message = message.strip()
    attributes: dict[str, str] = {}
    if repeated := _REPEATED.fullmatch(message):
        attributes["repeated"], message = repeated[1], repeated[2].strip()
    family, _, module = program.lower().partition("(")
    pam = _PAM.match(message)
    around = _AROUND.fullmatch(message[pam.end() if pam else 0 :])
    text = around[1] if around else message
    families = ("pam",) if pam or module.startswith("pam_") else (family, "pam")
    for name in families:
        for pattern, outcome in _compiled(_FAMILIES.get(name, name)):
            if found := pattern.fullmatch(text):
                said = {name: text for name, text in found.groupdict().items() if text}
                entities = tuple(_entities_of(said))
                attributes |= {name: said[name] for name in _FACTS if name in said}
                action = said.get("action", "").strip(" []:") or family
                return Said(action, outcome, entities, attributes)
    return _NOTHING


_FACTS = ("session_id", "tty", "uid", "pwd", "protocol")


@functools.cache
def _compiled(family: str) -> tuple[tuple[re.Pattern[str], Outcome], ...]:
    rules = _RULES.get(family, ())
    return tuple((re.compile(pattern, re.DOTALL), outcome) for pattern, outcome in rules)


def _entities_of(said: dict[str, str]) -> Iterator[Entity]:
    roles: dict[str, Role] = {"by": "actor", "ruser": "actor", "user": "target"}
    for group, role in roles.items():
        name = said.get(group, "").strip()
        if name.lower() not in _NOBODY:
            yield Entity(type="user", name="root" if name == "ROOT" else name, role=role)
    if "group" in said:
        yield Entity(type="group", name=said["group"], role="target")
    if place := said.get("ip", ""):
        if ip := numeric(place):
            yield Entity(type="ip", name=ip, port=said.get("port", ""), role="source")
        elif place.lower() not in _NOBODY:
            yield _entities.host(place, role="source")
    if "name" in said:
        yield _entities.host(said["name"], role="source")
    if ip := numeric(said.get("to", "")):
        yield Entity(type="ip", name=ip, port=said.get("to_port", ""), role="target")
    if command := said.get("command", "").strip():
        yield process(command.split(None, 1)[0], command_line=command)
