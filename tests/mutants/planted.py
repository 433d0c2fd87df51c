"""The bugs: each an exact replacement in one file, and the tests that must find it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """old: it stands in the file once. tests: what pytest takes, those that are quick first."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


_LEDGER = ("tests/schemas/test_ledger.py",)
_ACCOUNT = ("tests/transforms/test_account.py",)
_OWED = ("tests/transforms/test_owed.py",)
_WRITE = ("tests/transforms/test_write.py",)
_SEEN = ("tests/transforms/test_deduplicate.py",)
_STEPS = ("tests/transforms/test_steps.py",)
_STORE = ("tests/transforms/test_state_store.py",)
_ENGINE = ("tests/transforms/delivery/test_engine.py",)
_ARREARS = ("tests/transforms/delivery/test_engine_arrears.py",)
_HTTP = ("tests/transforms/delivery/test_http.py",)
_NETWORK = ("tests/transforms/delivery/test_network.py",)
_READER = ("tests/transforms/read/test_reader.py",)
_SOURCE = ("tests/transforms/read/test_before_it_is_handed_on.py",)
_CRASH = ("tests/transforms/test_left_by_a_crash.py",)
_COLD = ("tests/pipelines/test_cold_start.py",)
_MARKS = ("tests/transforms/test_hand_over.py",)

_HISTORY = ("tests/transforms/read/test_history.py",)
_REPLAY = ("tests/pipelines/test_replay.py",)
_ATTEMPTS = ("tests/cluster/test_attempts.py",)

_HISTORY_PY = "transforms/read/history.py"
_REPLAY_PY = "pipelines/replay/replay.py"
_LEDGER_PY = "schemas/ledger.py"
_ACCOUNT_PY = "transforms/account.py"
_OWED_PY = "transforms/owed.py"
_WRITE_PY = "transforms/write.py"
_SEEN_PY = "transforms/deduplicate.py"
_ENGINE_PY = "transforms/delivery/engine.py"
_COLD_PY = "pipelines/cold_start.py"

MUTANTS = (
    # ------------------------------------------------------------- the account, the positions
    Mutant(
        "checkpoint before settle: the position moves before receipts are whole",
        _LEDGER_PY,
        "if entry.first > self.position + 1 or ended < entry.size:",
        "if entry.first > self.position + 1:",
        _LEDGER,
    ),
    Mutant(
        "checkpoint over a hole: the position moves over a batch without a receipt",
        _LEDGER_PY,
        "if entry.first > self.position + 1 or ended < entry.size:",
        "if ended < entry.size:",
        _LEDGER,
    ),
    Mutant(
        "counted twice: a batch that a longer one had counted",
        _LEDGER_PY,
        "if entry.last <= self.position:",
        "if False:",
        _LEDGER,
    ),
    Mutant(
        "owed forgotten: what a settled batch owes is not kept until it is written",
        _LEDGER_PY,
        "if entry.last > position]\n        if self.spans",
        "if False]\n        if self.spans",
        _LEDGER,
    ),
    Mutant(
        "owed forgotten: only the last receipt's of a batch that ended in parts",
        _LEDGER_PY,
        "entry.owed.extend(receipt.owed)",
        "entry.owed = [*receipt.owed]",
        _LEDGER,
    ),
    Mutant(
        "paid twice: a payment counts records that are not owed",
        _LEDGER_PY,
        "self.delivered += before - undelivered",
        "self.delivered += count(payment.delivered)",
        _LEDGER,
    ),
    Mutant(
        "IOU after position: a crash between the two forgets what is owed",
        _ACCOUNT_PY,
        "        if owing or payment:\n",
        "        if ledger is not None and position < ledger.position:\n"
        "            early = Settled(ledger.position, ledger.records, 0, ledger.outcomes)\n"
        "            path = account_path(self._sink, source, partition)\n"
        "            self._store.put(path, msgspec.json.encode(early))\n"
        "        if owing or payment:\n",
        _ACCOUNT,
    ),
    Mutant(
        "checkpoint of the fastest sink: the others would miss the rest",
        _ACCOUNT_PY,
        "return min(positions, default=None)",
        "return max(positions, default=None)",
        _ACCOUNT,
    ),
    Mutant(
        "a crash's leftovers: what is owed beyond the position stays",
        _ACCOUNT_PY,
        "            owed.trim(self._store, self._sink, *_pair(origin), position)\n",
        "",
        _ACCOUNT,
    ),
    Mutant(
        "a step back: an account that another writer moved on is overwritten",
        _ACCOUNT_PY,
        "if position < ledger.position:",
        "if position != ledger.position:",
        _ACCOUNT,
    ),
    Mutant(
        "a late first position: a sink begins with the first receipt that comes",
        _ACCOUNT_PY,
        "begin(self._store, {*self._sinks, self._sink}, origin, first - 1)",
        "begin(self._store, {self._sink}, origin, first - 1)",
        _ACCOUNT,
    ),
    # -------------------------------------------------------------------------- what is owed
    Mutant(
        "owed twice: a flush that failed halfway is repeated",
        _OWED_PY,
        "            if entry.last <= known:\n"
        "                continue  # a flush got thus far, and failed then\n",
        "",
        _OWED,
    ),
    Mutant(
        "paid counts twice: a crash left the segment beside its sum",
        _OWED_PY,
        "            if first in self._paid.closed:",
        "            if False:",
        _OWED,
    ),
    Mutant(
        "owed beyond the position: readers pay what will be read again",
        _OWED_PY,
        "            if iou.last > position:\n                iou.owed",
        "            if False:\n                iou.owed",
        _OWED,
    ),
    Mutant(
        "payload dropped: a file set aside goes while another sink is owed it",
        _OWED_PY,
        "if file.last <= settled and not clip(owed, file.first, file.last):",
        "if file.last <= settled:",
        ("tests/transforms/test_aside.py",),
    ),
    # ----------------------------------------------------------------------- writing to sinks
    Mutant(
        "dead letter after the receipt: a crash between the two loses it",
        _WRITE_PY,
        "        if letters:\n            write_dead_letters(self._store, letters)\n"
        "            metrics.DEAD.add(len(letters), self._sink.name)\n"
        "        if later and self._journal:\n"
        "            with self._alone:\n"
        "                for each in later:\n"
        "                    self._journal.add(each)\n"
        "        if metrics.on():\n"
        "            metrics.stand((), {self._sink.name: self._engine.status()})\n"
        "        for origin, each in said:\n"
        "            if each.only is not None and (paying := payer(self._run)):\n"
        "                ended_now = each.delivered + each.dead + each.not_routed\n"
        "                paying.done(each.only, origin, ended_now, each.owed)\n"
        "            yield WindowedValue(each, MIN_TIMESTAMP, [GlobalWindow()])\n",
        "        for origin, each in said:\n"
        "            if each.only is not None and (paying := payer(self._run)):\n"
        "                ended_now = each.delivered + each.dead + each.not_routed\n"
        "                paying.done(each.only, origin, ended_now, each.owed)\n"
        "            yield WindowedValue(each, MIN_TIMESTAMP, [GlobalWindow()])\n"
        "        if letters:\n            write_dead_letters(self._store, letters)\n",
        ("tests/transforms/test_order_of_writes.py",),
    ),
    Mutant(
        "sent twice: what the sink had settled is sent again after a crash",
        _WRITE_PY,
        "            after = self._settled.get(batch.origin, -1)\n",
        "            after = -1\n",
        _WRITE,
    ),
    Mutant(
        "one lost: what lies just behind the position is taken for settled",
        _WRITE_PY,
        "for alert in batch.alerts if alert.sequence > after]",
        "for alert in batch.alerts if alert.sequence > after + 1]",
        _WRITE,
    ),
    Mutant(
        "a receipt too early: a batch ends with its first record",
        _WRITE_PY,
        "return all(parcel.outcome is not None for parcel in self.parcels)",
        "return not self.parcels or self.parcels[0].outcome is not None",
        ("tests/transforms/test_order_of_writes.py",),
    ),
    Mutant(
        "digest lost: one that its sink refuses is not set aside",
        _WRITE_PY,
        "if parcel.outcome is not Outcome.DELIVERED and parcel.alert is not None:",
        "if parcel.outcome is Outcome.DEAD and parcel.alert is not None:",
        _WRITE,
    ),
    # --------------------------------------------------------------------------- deduplication
    Mutant(
        "horizon short by a generation: an older repeat passes",
        _SEEN_PY,
        "self.older = self.current if generation == self.generation + 1 else set()",
        "self.older = set()",
        _SEEN,
    ),
    Mutant(
        "horizon without end: a generation that is long over is kept",
        _SEEN_PY,
        "self.older = self.current if generation == self.generation + 1 else set()",
        "self.older = self.current",
        _SEEN,
    ),
    Mutant(
        "a payment taken for a repeat: what is owed is never delivered",
        _SEEN_PY,
        "    if batch.only is not None and batch.only not in _MARKING:\n        return batch, []\n",
        "",
        _SEEN,
    ),
    Mutant(
        "no high-water mark: what a crash left unsettled is a repeat of what was only marked",
        _SEEN_PY,
        "elif batch.only is None and alert.sequence <= left.mark and alert.key in seen.weak:",
        "elif False:",
        _CRASH,
    ),
    Mutant(
        "no mark is weak: a key tells a repeat although its record was never delivered",
        _SEEN_PY,
        "                seen.weak.add(alert.key)\n",
        "                pass\n",
        _CRASH,
    ),
    Mutant(
        "digests count twice: what was counted when it was read to be marked",
        _SEEN_PY,
        "            alert.counted = True",
        "            alert.counted = False",
        _CRASH,
    ),
    Mutant(
        "read before it is marked as read: the high-water mark comes too late",
        "transforms/read/event_hubs.py",
        "            high_water(self._run, self._store).cover(origin, sequence)\n",
        "            pass\n",
        _SOURCE,
    ),
    # ------------------------------------------------------------------------------- the engine
    Mutant(
        "a parcel lost: a request that is halved",
        _ENGINE_PY,
        "self._requeue(chunk, parcels[:middle], parcels[middle:])",
        "self._requeue(chunk, parcels[:middle], parcels[middle + 1 :])",
        _ENGINE,
    ),
    Mutant(
        "the wrong one dead: a refused position is off by one",
        _ENGINE_PY,
        "self._finish(chunk, [parcels[at]], Outcome.DEAD, printable(why))",
        "self._finish(chunk, [parcels[at - 1]], Outcome.DEAD, printable(why))",
        _ENGINE,
    ),
    Mutant(
        "delivered without being: those to be sent again count as taken",
        _ENGINE_PY,
        "rest = [parcels[at] for at in sent if at not in refused and at not in again]",
        "rest = [parcels[at] for at in sent if at not in refused]",
        _ARREARS,
    ),
    Mutant(
        "circuit never half-opens: a sink that is back gets nothing",
        "transforms/delivery/circuit.py",
        "        self._move(CircuitState.HALF_OPEN)\n",
        "        pass\n",
        _ENGINE,
    ),
    Mutant(
        "circuit never opens: every batch waits for the whole patience",
        _ENGINE_PY,
        "again_at >= chunk.deadline:\n            self._trip(reason, after or 0.0)",
        "again_at >= chunk.deadline:\n            self._retries += 1",
        _ENGINE,
    ),
    Mutant(
        "half-open to all: every sender tries at once",
        _ENGINE_PY,
        "self._trying = self._circuit.state is CircuitState.HALF_OPEN\n        size",
        "self._trying = False\n        size",
        _ENGINE,
    ),
    Mutant(
        "told late, counted twice: a result after the record was owed",
        _ENGINE_PY,
        "        if not chunk.left:\n            self._late += 1\n            return\n",
        "",
        _ENGINE,
    ),
    Mutant(
        "credentials not read anew: a refused token drops the connection never",
        _ENGINE_PY,
        "if isinstance(verdict, Refresh) and not chunk.refreshed:",
        "if False:",
        _ARREARS,
    ),
    Mutant(
        "pending counts as delivered: what is lost before it is indexed is lost",
        _ENGINE_PY,
        "if isinstance(verdict, Pending) and verdict.handle not in pending:",
        "if isinstance(verdict, Pending):\n"
        "                    verdict = Accepted()\n"
        "                if False:",
        _ARREARS,
    ),
    Mutant(
        "pending forgotten: the connection ends before it is confirmed",
        _ENGINE_PY,
        "                for chunk, parcels in pending.values():\n",
        "                for chunk, parcels in ():\n",
        _ARREARS,
    ),
    Mutant(
        "live before arrears: a sink that catches up gets it out of order",
        _ENGINE_PY,
        "first = self._live if self._live and not self._catching_up else self._arrears",
        "first = self._live if self._live else self._arrears",
        _ARREARS,
    ),
    Mutant(
        "no rate: a sink gets more a second than it may",
        _ENGINE_PY,
        "        self._bucket.take(now, len(parcels), size)\n",
        "",
        _ARREARS,
    ),
    # --------------------------------------------------------------------- reading and parsing
    Mutant(
        "a gap not recorded: the rest of a range is gone from the hub",
        "transforms/read/event_hubs.py",
        "self._gap(origin, first, limit)\n",
        "pass\n",
        _SOURCE,
    ),
    Mutant(
        "a gap not recorded: events are missing between others",
        "transforms/read/event_hubs.py",
        "self._gaps(origin, first, events)\n",
        "pass\n",
        _SOURCE,
    ),
    Mutant(
        "a range with a hole: a batch begins with its first event, not behind the last batch",
        "transforms/read/event_hubs.py",
        "origin, first, last.sequence, only, records, None, last.offset,",
        "origin, events[0].sequence, last.sequence, only, records, None, last.offset,",
        _SOURCE,
    ),
    Mutant(
        "read twice: the hub repeats events after a reconnect",
        "transforms/read/reader.py",
        "new = [event for event in events if event.sequence >= feed.fetched]",
        "new = [*events]",
        _READER,
    ),
    Mutant(
        "paid from anywhere: an event of which one record is owed is delivered whole",
        "transforms/steps.py",
        "        if batch.wanted is not None:\n"
        "            parsed, letters = _only_wanted(batch, parsed, letters)\n",
        "",
        _STEPS,
    ),
    Mutant(
        "a dead letter after the positions: Parse writes none by the end of its bundle",
        "transforms/steps.py",
        "            write_dead_letters(self._store, self._letters)\n",
        "",
        _STEPS,
    ),
    Mutant(
        "a broken record that counts nowhere",
        "transforms/parse.py",
        "    size = len(alerts) + len(dead)\n",
        "    size = len(alerts)\n",
        ("tests/transforms/test_parse.py",),
    ),
    Mutant(
        "counted in digests again: what is paid was counted when it came",
        "transforms/steps.py",
        "        if batch.only not in (None, TO_DIGESTS):\n            return\n",
        "",
        _STEPS,
    ),
    # -------------------------------------------------------------------------- the state store
    Mutant(
        "half a file: the state store writes in place",
        "transforms/state_store.py",
        "Path(temporary).replace(target)\n",
        "target.write_bytes(data)\n",
        _STORE,
    ),
    Mutant(
        "lost with the power: the state store does not wait for the disk",
        "transforms/state_store.py",
        "os.fsync(file.fileno())\n",
        "pass\n",
        _STORE,
    ),
    Mutant(
        "two runs in one folder",
        "transforms/state_store.py",
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        _STORE,
    ),
    # --------------------------------------------------------------------------------- the sinks
    Mutant(
        "another id at every retry: a webhook's receiver takes it for news",
        "transforms/sinks/webhook.py",
        'identity = f"msg_{hashlib.blake2b(body, digest_size=16).hexdigest()}"',
        'identity = f"msg_{time.time_ns()}"',
        ("tests/transforms/sinks/test_webhook.py",),
    ),
    Mutant(
        "a document more at every retry: Elasticsearch is told no id",
        "transforms/sinks/elasticsearch.py",
        """b'{"create":{"_id":"%b"}}\\n%b' % (identity, document)""",
        """b'{"create":{}}\\n%b' % document""",
        ("tests/transforms/sinks/test_elasticsearch.py",),
    ),
    Mutant(
        "no id among Kafka's headers: repeats cannot be told",
        "transforms/sinks/kafka.py",
        '                headers=[("event_id", payload[id_at:value_at])],\n',
        "",
        ("tests/transforms/sinks/test_contract.py::test_one[kafka]",),
    ),
    Mutant(
        "believed although the shift failed: what ended in it stays owed, and is never paid",
        "transforms/read/payer.py",
        "feed.owed, feed.hand, feed.ended = [], [], []\n",
        "feed.owed, feed.hand = [], []\n",
        ("tests/transforms/read/test_payer.py",),
    ),
    Mutant(
        "begun too soon: what a failed shift still writes moves accounts under the next one",
        "pipelines/run.py",
        "        wait_until_written()\n",
        "",
        ("tests/pipelines/test_run.py::TestShifts",),
    ),
    Mutant(
        "panes fire although it cannot be written: a crash has their alerts told again",
        "pipelines/run.py",
        "            return False\n        self._unwritten",
        "        self._unwritten",
        ("tests/pipelines/test_run.py::test_panes_wait_until_it_can_be_written_that_they_fire",),
    ),
    Mutant(
        "lost with the connection: syslog does not send again what broke with it",
        "transforms/delivery/syslog.py",
        "        self._lost = bool(self._tail)\n",
        "        self._lost = False\n",
        ("tests/transforms/sinks/test_syslog.py",),
    ),
    Mutant(
        "half a line: a file that a crash left open is finished as it is",
        "transforms/sinks/file.py",
        "            os.ftruncate(fd, whole)\n",
        "",
        ("tests/transforms/sinks/test_file.py",),
    ),
    Mutant(
        "half a chunk: what did not fit on the disk stays in the file",
        "transforms/sinks/file.py",
        "                os.ftruncate(self._fd, self._size)\n",
        "                pass\n",
        ("tests/transforms/sinks/test_file.py",),
    ),
    Mutant(
        "delivered before it is on the disk: a file is not synced",
        "transforms/sinks/file.py",
        "            if self._settings.sync:\n                os.fsync(self._fd)\n",
        "",
        ("tests/transforms/sinks/test_file.py",),
    ),
    # ------------------------------------------------------------- escapes, secrets, certificates
    Mutant(
        "CEF: an equals sign begins another field",
        "schemas/formats/cef.py",
        """ord("="): r"\\=", """,
        "",
        ("tests/schemas/formats/test_cef.py",),
    ),
    Mutant(
        "CEF: a pipe ends the header's field",
        "schemas/formats/cef.py",
        """, ord("|"): r"\\|"})\n_VALUE""",
        "})\n_VALUE",
        ("tests/schemas/formats/test_cef.py",),
    ),
    Mutant(
        "syslog: a bracket ends the structured data",
        "schemas/formats/rfc5424.py",
        """, ord("]"): r"\\]"})""",
        "})",
        ("tests/schemas/formats/test_rfc5424.py",),
    ),
    Mutant(
        "LEEF: a tab in a value begins another field",
        "schemas/formats/leef.py",
        "        value = value.translate(HARMLESS)\n",
        "        pass\n",
        ("tests/schemas/formats/test_leef.py",),
    ),
    Mutant(
        "octets counted as something else: one message runs into the next",
        "transforms/delivery/syslog.py",
        'b"%d %b" % (len(payload), payload)',
        'b"%d %b" % (len(payload.decode()), payload)',
        ("tests/transforms/sinks/test_syslog.py",),
    ),
    Mutant(
        "any certificate will do",
        "transforms/delivery/network.py",
        "        if not self.verify:\n",
        "        if True:\n",
        _NETWORK,
    ),
    Mutant(
        "anybody's certificate will do: the host's name is not compared",
        "transforms/delivery/network.py",
        "        context.minimum_version = ssl.TLSVersion.TLSv1_2\n",
        "        context.minimum_version = ssl.TLSVersion.TLSv1_2\n"
        "        context.check_hostname = False\n",
        _NETWORK,
    ),
    Mutant(
        "a secret in repr",
        "transforms/secrets.py",
        'return "Secret(***)"',
        'return f"Secret({self._value})"',
        ("tests/transforms/test_secrets.py",),
    ),
    Mutant(
        "a secret in a pickle",
        "transforms/secrets.py",
        "    def __reduce__(self) -> NoReturn:\n"
        '        raise TypeError("a secret cannot be pickled: pass its reference, resolve it in '
        'setup()")\n',
        "",
        ("tests/transforms/test_secrets.py",),
    ),
    Mutant(
        "a pasted secret is quoted back",
        "transforms/secrets.py",
        '                "a secret is given as a reference: env:NAME',
        '                f"{text}: a secret is given as a reference: env:NAME',
        ("tests/transforms/test_secrets.py",),
    ),
    Mutant(
        "a secret that a receiver quotes is repeated",
        "transforms/sinks/webhook.py",
        'return lambda text: found.sub("***", text)',
        "return lambda text: text",
        ("tests/transforms/sinks/test_webhook.py",),
    ),
    Mutant(
        "a signature that an alert quotes leaves unmasked",
        "schemas/masking.py",
        'return (found[found.lastindex or 0] or b"") + MASK',
        "return found[0]",
        ("tests/schemas/test_masking.py",),
    ),
    Mutant(
        "answers of any size are read",
        "transforms/delivery/http.py",
        "_MOST = 64 * 1024",
        "_MOST = 64 * 1024 * 1024",
        _HTTP,
    ),
    # ------------------------------------------------------------------ after a crash
    Mutant(
        "warm-up without high-water marks",
        _COLD_PY,
        "mark = max(partly, reached.get(name, -1), told.get(name, -1))",
        "mark = max(partly, told.get(name, -1))",
        _COLD,
    ),
    Mutant(
        "what warm-up saw ends what was not settled",
        _SEEN_PY,
        "alert.sequence <= left.mark and alert.key in seen.weak",
        "False",
        _COLD,
    ),
    Mutant(
        "a record that one sink had settled ends the copy that another lacks",
        _SEEN_PY,
        "weak = batch.only is not None or alert.sequence <= left.partly",
        "weak = batch.only is not None",
        _COLD,
    ),
    Mutant(
        "a shift that ends within what a crash left forgets which keys are weak",
        _SEEN_PY,
        "        if not handed.unsettled:\n            seen.weak = set()",
        "        seen.weak = set()",
        _COLD,
    ),
    Mutant(
        "what passes again after a crash is counted again",
        _SEEN_PY,
        "alert.counted = True  # when",
        "alert.counted = False  # when",
        _COLD,
    ),
    Mutant(
        "what a crashed shift had counted is not read again",
        _COLD_PY,
        "counted = min(live, told[name] + 1 if name in told else ever)",
        "counted = live",
        _COLD,
    ),
    Mutant(
        "a shift that left something unsettled hands over",
        _COLD_PY,
        "if position is None or head > position:",
        "if position is None:",
        _COLD,
    ),
    Mutant(
        "a mark goes back",
        "transforms/hand_over.py",
        "max(head + self._margin(each, head, took), self._marks.get(each, -1))",
        "head + self._margin(each, head, took)",
        _MARKS,
    ),
    Mutant(
        "reading runs ahead of its mark",
        "transforms/hand_over.py",
        "if sequence <= self._marks.get(name, -1):",
        "if sequence <= self._marks.get(name, -1) + 50:",
        _MARKS,
    ),
    # ------------------------------------------------------------- history
    Mutant(
        "a replay that goes on begins its chunk anew",
        _HISTORY_PY,
        "if records and records[0].sequence < start:",
        "if False and records:",
        _HISTORY,
    ),
    Mutant(
        "what is to be delivered is marked as seen before",
        _HISTORY_PY,
        "[r for r in piece.batch.records if r.sequence < start]",
        "[r for r in piece.batch.records]",
        _HISTORY,
    ),
    Mutant(
        "a sink gets more than it is owed",
        _HISTORY_PY,
        "return Batch(at, first, last, sink, records, clip(wanted, first, last))",
        "return Batch(at, first, last, sink, records, None)",
        _HISTORY,
    ),
    Mutant(
        "storage that fails passes for files that are gone",
        _HISTORY_PY,
        "if error.errno in _GONE or isinstance(error, FileNotFoundError | PermissionError):",
        "if isinstance(error, OSError):",
        _HISTORY,
    ),
    Mutant(
        "what another lane still has to deliver passes for delivered",
        _SEEN_PY,
        "(key for key in keys if key not in seen.weak)",
        "keys",
        _SEEN,
    ),
    Mutant(
        "what is of another time has no outcome",
        "transforms/replayed.py",
        "return msgspec.structs.replace(batch, alerts=kept, dropped=batch.dropped + others)",
        "return msgspec.structs.replace(batch, alerts=kept)",
        _REPLAY,
    ),
    Mutant(
        "what had ended before a kill is forgotten, and sent again",
        _REPLAY_PY,
        "            self._accounts.enter(journaled(self.store, self._journal))\n",
        "",
        _REPLAY,
    ),
    Mutant(
        "a record is through before its dead letter is on disk",
        "pipelines/forward.py",
        "at_once = bounded is not None or bool(journal)",
        "at_once = bounded is not None",
        _REPLAY,
    ),
    Mutant(
        "a receipt is put down before its dead letters are on disk",
        _WRITE_PY,
        "if self._journal and letters:",
        "if False:",
        _WRITE,
    ),
    Mutant(
        "what a failed shift has under way is sent, and sent again",
        _REPLAY_PY,
        "                engine.settle()\n",
        "                pass\n",
        _REPLAY,
    ),
    Mutant(
        "a file that grew is read from its beginning",
        "transforms/read/listing.py",
        "yield file._replace(start=start if grew else 0)",
        "yield file",
        (*_REPLAY, "tests/transforms/read/test_listing.py"),
    ),
    Mutant(
        "what sinks had settled of an attempt that failed makes its originals repeats",
        _SEEN_PY,
        "return Unsettled(attempt.partly, attempt.mark, attempt.told)",
        "return Unsettled()",
        _ATTEMPTS,
    ),
    Mutant(
        "weak keys are strong after the next attempt",
        _SEEN_PY,
        "if weak := [key for key in new if key in seen.weak]:",
        "if weak := []:",
        _ATTEMPTS,
    ),
    Mutant(
        "a batch lies across where a sink stands",
        "transforms/attempts.py",
        "return min(stop, positions[at] + 1) if at < len(positions) else stop",
        "return stop",
        _ATTEMPTS,
    ),
    Mutant(
        "an account goes on from the runner's state although the store is further",
        _ACCOUNT_PY,
        "if ledger.position < self._written[origin]:",
        "if False:",
        _ATTEMPTS,
    ),
    Mutant(
        "an account of an attempt that is over is written",
        _ACCOUNT_PY,
        "attempt(self._store, origin).number > ledger.attempt",
        "False",
        _ATTEMPTS,
    ),
    Mutant(
        "what a worker had in hand when its partition was read anew makes repeats",
        "transforms/deduplicate_by_scope.py",
        "        self._seen = Seen(self._seen.horizon_ms)\n",
        "        pass\n",
        _ATTEMPTS,
    ),
    Mutant(
        "a reader on a cluster does not hold the watermark",
        "transforms/read/by_timer.py",
        "        again._input_timestamp = MIN_TIMESTAMP if watermark is None else watermark\n",
        "",
        ("tests/transforms/read/test_by_timer.py",),
    ),
    Mutant(
        "a partition that is handed out again is read twice on a cluster",
        "transforms/read/by_timer.py",
        "if rest.read() is None:",
        "if True:",
        ("tests/transforms/read/test_by_timer.py",),
    ),
)
