"""The messages of Unix programs: who, from where, and how it went."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.entities import Entity
from schemas.kinds import _unix

names = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=80)


def said(program: str, message: str) -> tuple[str, str, list[str]]:
    """Action, outcome, and entities as `role type name:port`."""
    found = _unix.understand(program, message)
    things = [
        f"{it.role} {it.type} {it.full_name}{':' * bool(it.port)}{it.port}".strip()
        for it in found.entities
    ]
    return found.action, found.outcome, things


BOB = "target user bob"
IP = "source ip 203.0.113.30"


@pytest.mark.parametrize(
    ("message", "action", "outcome", "things"),
    [
        (
            "Accepted publickey for bob from 203.0.113.30 port 40022 ssh2: ED25519 SHA256:abc",
            *("Accepted publickey", "success", [BOB, f"{IP}:40022"]),
        ),
        (
            "Failed password for invalid user bob from 203.0.113.30 port 40022 ssh2",
            *("Failed password", "failure", [BOB, f"{IP}:40022"]),
        ),
        (
            "Failed keyboard-interactive/pam for bob from 2001:db8::1 port 7",
            *("Failed keyboard-interactive/pam", "failure", [BOB, "source ip 2001:db8::1:7"]),
        ),
        (
            "Postponed publickey for bob from 203.0.113.30 port 7 ssh2 [preauth]",
            *("Postponed publickey", "", [BOB, f"{IP}:7"]),
        ),
        ("Invalid user bob from 203.0.113.30", "Invalid user", "failure", [BOB, IP]),
        ("Invalid user bob from 203.0.113.30 port 7", "Invalid user", "failure", [BOB, f"{IP}:7"]),
        (
            "User bob from 203.0.113.30 not allowed because not listed in AllowUsers",
            *("not allowed", "failure", [BOB, IP]),
        ),
        (
            "User bob not allowed because account is locked",
            *("not allowed", "failure", [BOB]),
        ),
        (
            "error: maximum authentication attempts exceeded for invalid user bob from"
            " 203.0.113.30 port 7 ssh2 [preauth]",
            *("maximum authentication attempts exceeded", "failure", [BOB, f"{IP}:7"]),
        ),
        (
            "Disconnecting: Too many authentication failures for bob [preauth]",
            *("Too many authentication failures", "failure", [BOB]),
        ),
        (
            "Disconnecting authenticating user bob 203.0.113.30 port 7: Too many authentication"
            " failures [preauth]",
            *("Disconnecting", "", [BOB, f"{IP}:7"]),
        ),
        (
            "Connection closed by authenticating user bob 203.0.113.30 port 7 [preauth]",
            *("Connection closed", "", [BOB, f"{IP}:7"]),
        ),
        ("Connection closed by 203.0.113.30 [preauth]", "Connection closed", "", [IP]),
        ("Disconnected from user bob 203.0.113.30 port 7", "Disconnected", "", [BOB, f"{IP}:7"]),
        (
            "Received disconnect from 203.0.113.30: 11: Bye Bye [preauth]",
            *("Received disconnect", "", [IP]),
        ),
        (
            "Received disconnect from 203.0.113.30 port 7:11: disconnected by user",
            *("Received disconnect", "", [f"{IP}:7"]),
        ),
        (
            "fatal: Unable to negotiate with 203.0.113.30 port 7: no matching cipher found.",
            *("Unable to negotiate", "", [f"{IP}:7"]),
        ),
        (
            "Timeout before authentication for connection from 203.0.113.30 to 10.0.0.4, pid = 7",
            *("Timeout before authentication", "", [IP]),
        ),
        (
            'Connection from 203.0.113.30 port 7 on 10.0.0.4 port 22 rdomain ""',
            *("Connection", "", [f"{IP}:7", "target ip 10.0.0.4:22"]),
        ),
        (
            "Did not receive identification string from 203.0.113.30 port 7",
            *("Did not receive identification string", "", [f"{IP}:7"]),
        ),
        (
            "reverse mapping checking getaddrinfo for x.example.net [203.0.113.30] failed - "
            "POSSIBLE BREAK-IN ATTEMPT!",
            *("reverse mapping checking", "", [IP, "source host x.example.net"]),
        ),
        (
            "error: PAM: Authentication failure for illegal user bob from 203.0.113.30",
            *("Authentication failure", "failure", [BOB, IP]),
        ),
        (
            "Starting session: command for bob from 203.0.113.30 port 7 id 0",
            *("Starting session", "success", [BOB, f"{IP}:7"]),
        ),
        (
            "message repeated 5 times: [ Failed password for bob from 203.0.113.30 port 7 ssh2]",
            *("Failed password", "failure", [BOB, f"{IP}:7"]),
        ),
        (
            "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser="
            " rhost=203.0.113.30  user=bob",
            *("authentication failure", "failure", [BOB, IP]),
        ),
        (
            "PAM 2 more authentication failures; logname=eve uid=0 euid=0 tty=ssh ruser="
            " rhost=x.example.net  user=bob",
            *(
                "authentication failures",
                "failure",
                ["actor user eve", BOB, "source host x.example.net"],
            ),
        ),
        (
            "pam_unix(sshd:session): session opened for user bob(uid=1000) by eve(uid=0)",
            *("session opened", "success", ["actor user eve", BOB]),
        ),
        (
            "pam_unix(sshd:session): session opened for user bob by (uid=0)",
            *("session opened", "success", [BOB]),
        ),
        ("pam_unix(sshd:session): session closed for user bob", "session closed", "success", [BOB]),
        ("pam_unix(sshd:auth): check pass; user unknown", "check pass", "failure", []),
        ("Server listening on 0.0.0.0 port 22.", "", "", []),
    ],
)
@pytest.mark.parametrize("program", ["sshd", "sshd-session"])
def test_sshd(program: str, message: str, action: str, outcome: str, things: list[str]) -> None:
    assert said(program, message) == (action, outcome, things)


EVE_ROOT = ["actor user eve", "target user root"]


@pytest.mark.parametrize(
    ("program", "message", "action", "outcome", "things"),
    [
        (
            "sudo",
            "    eve : TTY=pts/0 ; PWD=/home/eve ; USER=root ; COMMAND=/bin/ls /root",
            *("sudo", "success", [*EVE_ROOT, "process /bin/ls"]),
        ),
        (
            "sudo",
            "eve : TTY=unknown   PWD=/   USER=root   COMMAND=/bin/ls",
            *("sudo", "success", [*EVE_ROOT, "process /bin/ls"]),
        ),
        (
            "sudo",
            "eve : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/ls",
            *("3 incorrect password attempts", "failure", [*EVE_ROOT, "process /bin/ls"]),
        ),
        (
            "sudo",
            "eve : user NOT in sudoers ; HOST=vm ; TTY=pts/0 ; PWD=/ ; USER=root ; GROUP=adm ;"
            " TSID=000001 ; ENV=A=b ; COMMAND=/bin/ls",
            *(
                "user NOT in sudoers",
                "failure",
                [*EVE_ROOT, "target group adm", "process /bin/ls"],
            ),
        ),
        ("su", "(to root) eve on pts/0", "su", "success", EVE_ROOT),
        ("su", "FAILED SU (to root) eve on pts/0", "FAILED SU", "failure", EVE_ROOT),
        ("su", "Successful su for root by eve", "Successful su", "success", EVE_ROOT),
        ("su", "FAILED su for root by eve", "FAILED su", "failure", EVE_ROOT),
        ("su", "+ pts/0 eve:root", "su", "success", EVE_ROOT),
        ("su", "- pts/0 eve:root", "su", "failure", EVE_ROOT),
        (
            "su(pam_unix)",
            "session opened for user cyrus by (uid=0)",
            *("session opened", "success", ["target user cyrus"]),
        ),
        ("login", "ROOT LOGIN ON tty1", "ROOT LOGIN", "success", ["target user root"]),
        (
            "login",
            "LOGIN ON tty1 BY bob FROM 203.0.113.30",
            *("LOGIN", "success", [BOB, IP]),
        ),
        (
            "login",
            "FAILED LOGIN 1 FROM 203.0.113.30 FOR bob, Authentication failure",
            *("FAILED LOGIN", "failure", [BOB, IP]),
        ),
        (
            "login",
            "pam_unix(login:session): session opened for user bob by LOGIN(uid=0)",
            *("session opened", "success", [BOB]),
        ),
        (
            "useradd",
            "new user: name=bob, UID=1001, GID=1001, home=/home/bob, shell=/bin/sh, from=pts/0",
            *("new user", "success", [BOB]),
        ),
        ("userdel", "delete user 'bob'", "delete user", "success", [BOB]),
        (
            "usermod",
            "add 'bob' to group 'sudo'",
            *("add", "success", [BOB, "target group sudo"]),
        ),
        ("groupadd", "new group: name=dev, GID=7", "new group", "success", ["target group dev"]),
        (
            "passwd",
            "pam_unix(passwd:chauthtok): password changed for bob",
            *("password changed", "success", [BOB]),
        ),
        ("systemd-logind", "New session 7 of user bob.", "New session", "success", [BOB]),
        (
            "systemd-logind",
            "New session '7' of user 'b.ob' with class 'user' and type 'tty'.",
            *("New session", "success", ["target user b.ob"]),
        ),
        (
            "CRON",
            "(root) CMD (   /usr/bin/job --now)",
            *("CMD", "", ["actor user root", "process /usr/bin/job"]),
        ),
        (
            "kernel",
            "[ 12.345678] [UFW BLOCK] IN=eth0 OUT= MAC=aa:bb SRC=203.0.113.30 DST=10.0.0.4 LEN=40"
            " TTL=54 ID=7 DF PROTO=TCP SPT=40022 DPT=22 WINDOW=1",
            *("UFW BLOCK", "", [f"{IP}:40022", "target ip 10.0.0.4:22"]),
        ),
        ("kernel", "audit: initializing netlink socket (disabled)", "", "", []),
        ("other", "Accepted password for bob from 203.0.113.30 port 7 ssh2", "", "", []),
    ],
)
def test_other_programs(
    program: str, message: str, action: str, outcome: str, things: list[str]
) -> None:
    assert said(program, message) == (action, outcome, things)


@given(names.filter(lambda name: name.strip().lower() not in _unix._NOBODY))
def test_a_name_cannot_forge_an_address(name: str) -> None:
    """Whoever logs in chooses the name."""
    for message in (
        f"Failed password for invalid user {name} from 203.0.113.30 port 7 ssh2",
        f"Invalid user {name} from 203.0.113.30 port 7",
        f"Connection closed by invalid user {name} 203.0.113.30 port 7 [preauth]",
    ):
        found = _unix.understand("sshd", message)
        assert [it.name for it in found.entities if it.type == "ip"] == ["203.0.113.30"]
        assert [it.name for it in found.entities if it.type == "user"] == [name.strip()]


FORGED = "x from 198.51.100.9 port 9 ssh2: y"


@pytest.mark.parametrize("name", [FORGED, "x 198.51.100.9 port 9: y", "invalid user root", " x"])
def test_a_name_like_the_rest_of_a_message_is_a_name(name: str) -> None:
    test_a_name_cannot_forge_an_address.hypothesis.inner_test(name)  # type: ignore[attr-defined]


def test_facts() -> None:
    message = "message repeated 5 times: [ pam_unix(su:session): session closed for user bob]"
    assert _unix.understand("su", message).attributes == {"repeated": "5"}
    message = "eve : TTY=pts/0 ; PWD=/tmp ; USER=root ; COMMAND=/bin/ls -l"
    found = _unix.understand("sudo", message)
    assert found.attributes == {"tty": "pts/0", "pwd": "/tmp"}
    assert found.entities[-1] == Entity(
        type="process", name="ls", path="/bin", command_line="/bin/ls -l"
    )


@pytest.mark.parametrize("program", [*_unix._RULES, "sshd(pam_unix)"])
def test_no_message_takes_long(program: str) -> None:
    pieces = ("a", " ", "from ", " port 1", ": ", " ; ", "USER=a ", "SRC=11 DST=11 ", "ENV=", "(")
    heads = (
        "",
        "Failed a for ",
        "eve : TTY=a ; PWD=",
        "a IN= OUT= ",
        "PAM: ",
        "Starting session: ",
    )
    began = time.process_time()
    for head in heads:
        for piece in pieces:
            _unix.understand(program, (head + piece * 4096)[:4096])
    assert time.process_time() - began < 2  # some hundredths
    assert _unix.understand("sshd", "Invalid user x from 203.0.113.30" + " " * 5000).action == ""
