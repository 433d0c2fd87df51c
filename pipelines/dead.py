"""Dead letters, as a person reads them: by step and reason, one a row, or one with its bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipelines.tables import shown, table
from schemas.dead_letter import DeadLetter
from transforms.capture import utc
from transforms.delivery.line import printable

__all__ = ["by_reason", "letters_table", "whole"]

_MOST_ROWS = 50
_MOST_BYTES = 16 * 1024


def by_reason(letters: Iterable[DeadLetter]) -> Table:
    """How many by step and reason, the most frequent first; of each an id, to look at."""
    counts: Counter[tuple[str, str]] = Counter()
    tried: Counter[tuple[str, str]] = Counter()
    example: dict[tuple[str, str], str] = {}
    for letter in letters:
        key = letter.step, letter.reason
        counts[key] += 1
        tried[key] += bool(letter.attempts)
        example.setdefault(key, letter.id)
    rows = table("dead letters")
    rows.add_column("step", style="bold", overflow="fold")
    rows.add_column("records", justify="right")
    rows.add_column("tried again", justify="right")
    rows.add_column("reason", overflow="fold")
    rows.add_column("such as", no_wrap=True)
    for (step, reason), number in counts.most_common():
        key = step, reason
        rows.add_row(shown(step), f"{number:,}", f"{tried[key]:,}", shown(reason), example[key])
    return rows


def letters_table(letters: Sequence[DeadLetter]) -> Table:
    """One a row."""
    rows = table(f"{len(letters):,} dead letters")
    rows.add_column("id", no_wrap=True)
    rows.add_column("step", style="bold", overflow="fold")
    rows.add_column("from", overflow="fold")
    rows.add_column("bytes", justify="right")
    rows.add_column("reason", overflow="fold")
    for letter in letters[:_MOST_ROWS]:
        rows.add_row(
            letter.id, shown(letter.step), shown(_where(letter)), f"{len(letter.body):,}",
            shown(letter.reason, most=80),
        )  # fmt: skip
    if len(letters) > _MOST_ROWS:
        rows.add_row("", "", f"… and {len(letters) - _MOST_ROWS:,} more")
    return rows


def whole(letter: DeadLetter) -> Group:
    """One letter: where it is from, why it is here, and its bytes, whatever they are."""
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    at = utc(letter.enqueued_ms)
    tried = f", tried again {letter.attempts:,} times in vain" if letter.attempts else ""
    rows.add_row("id", letter.id)
    rows.add_row("from", shown(f"{letter.source}, partition {letter.partition}", most=500))
    rows.add_row("event", f"{letter.sequence}, record {letter.index}")
    rows.add_row("enqueued", f"{at:%Y-%m-%d %H:%M:%S} UTC")
    rows.add_row("refused by", shown(letter.step + tried, "bold"))
    rows.add_row("because", shown(letter.reason, most=500))
    rows.add_row("bytes", f"{len(letter.body):,}" if letter.body else "none: it was written off")
    lines = [Text(line) for line in _lines(letter.body[:_MOST_BYTES])]
    if len(letter.body) > _MOST_BYTES:
        lines.append(Text("… (--raw writes all of it)", "dim"))
    return Group(rows, "", *lines) if lines else Group(rows)


def _where(letter: DeadLetter) -> str:
    hub = letter.source.split("/")[1] if "/" in letter.source else letter.source
    return f"{hub}/{letter.partition} {letter.sequence}.{letter.index}"


def _lines(body: bytes) -> Iterator[str]:
    """As text where it is, else in hexadecimal; nothing in it reaches the terminal's controls."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        if error.start >= len(body) - 4 and error.reason == "unexpected end of data":
            text = body[: error.start].decode()  # cut in the middle of a character
        else:
            for at in range(0, min(len(body), 1024), 16):
                piece = body[at : at + 16]
                seen = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
                yield f"{at:06x}  {piece.hex(' '):47}  {seen}"
            return
    for line in text.splitlines():
        yield printable(line, len(line))
