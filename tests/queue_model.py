"""The queue in plain Python: what the scripts do to threads, jobs and turns, without Redis.

It knows neither the fair order (any thread that is ready may be claimed) nor lifetimes nor limits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from core.types import Job, ThreadKey

MAX_ATTEMPTS = 2


@dataclass
class ModelJob:
    id: str
    turn: str
    author: str
    replaces: str | None = None
    covers: list[str] = field(default_factory=list)
    running: bool = False
    cancel: bool = False
    attempts: int = 0
    shown: str = ""
    ended: str = ""


@dataclass
class ModelThread:
    key: ThreadKey
    exists: bool = False
    delayed: bool = False
    gen: int = 0
    """Grows with each claim and each fencing: a claim with another one is stale."""
    jobs: list[ModelJob] = field(default_factory=list)
    mailbox: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    authors: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    """Reply -> prompt."""
    revisions: dict[str, int] = field(default_factory=dict)

    @property
    def running(self) -> ModelJob | None:
        return next((job for job in self.jobs if job.running), None)

    @property
    def ready(self) -> bool:
        return bool(self.jobs) and not self.running and not self.delayed

    def remembered(self) -> list[tuple[str, str]]:
        return [(id_, self.texts[id_]) for id_ in [*self.history, *self.mailbox]]


@dataclass
class Model:
    """Each method is one step of the queue, and returns the step's answer."""

    threads: dict[ThreadKey, ModelThread] = field(default_factory=dict)
    seen: dict[tuple[ThreadKey, str], str] = field(default_factory=dict)
    jobs: dict[str, ModelJob] = field(default_factory=dict)
    edits: dict[tuple[ThreadKey, str], tuple[int, str]] = field(default_factory=dict)
    """The newest of each message: a copy of it that comes later reads so."""

    def thread(self, key: ThreadKey) -> ModelThread:
        return self.threads.setdefault(key, ModelThread(key))

    # -- adapters -------------------------------------------------------------------------------

    def submit(
        self, key: ThreadKey, id_: str, author: str, text: str, *, addressed: bool
    ) -> tuple[str, str | None]:
        thread, before = self.thread(key), self.seen.get((key, id_))
        if before == "addressed" or (before and not addressed):
            return "duplicate", Job.id_for(key, id_, "")
        if not addressed and not thread.exists:
            return "ignored", None
        self.seen[key, id_] = "addressed" if addressed else "unaddressed"
        thread.exists = True
        companion = self._companion(thread, id_, author) if addressed else None
        known = id_ in thread.texts
        if not known:
            thread.mailbox.append(id_)
            thread.texts[id_], thread.authors[id_] = text, author
            if (key, id_) in self.edits:
                thread.revisions[id_], thread.texts[id_] = self.edits[key, id_]
        if not addressed:
            return "kept", None
        if companion:
            if known:
                companion.covers.insert(0, id_)
            else:
                companion.covers.append(companion.turn)
                companion.turn = id_
            return "queued", companion.id
        return "queued", self._open(thread, ModelJob(Job.id_for(key, id_, ""), id_, author)).id

    def _companion(self, thread: ModelThread, id_: str, author: str) -> ModelJob | None:
        if id_ in thread.history or not thread.jobs or not thread.mailbox:
            return None
        job = thread.jobs[-1]
        together = job.turn == thread.mailbox[-1] and job.author == author
        return job if together and not job.running and not job.replaces else None

    def _open(self, thread: ModelThread, job: ModelJob) -> ModelJob:
        self.jobs[job.id] = job
        thread.jobs.append(job)
        return job

    def edit(self, key: ThreadKey, id_: str, text: str, revision: int) -> tuple[str, str | None]:
        thread = self.thread(key)
        if self.edits.get((key, id_), (-1, ""))[0] < revision:
            self.edits[key, id_] = (revision, text)
        if id_ not in thread.texts:
            return "ignored", None
        if thread.revisions.get(id_, -1) >= revision:
            return "duplicate", Job.id_for(key, id_, str(revision))
        thread.revisions[id_] = revision
        if thread.texts[id_] == text:
            return "duplicate", None
        thread.texts[id_] = text
        for job in thread.jobs:
            if id_ in (job.turn, *job.covers):
                if job.running:
                    job.author = thread.authors[id_]  # another may have regenerated the reply
                    self._start_over(thread, job)
                    job.cancel = False
                return "queued", job.id
        reply = self._reply_to(thread, id_)
        if thread.jobs or not reply or thread.history[-1] != reply:
            return "kept", None
        new = Job.id_for(key, id_, str(revision))
        return "queued", self._open(thread, ModelJob(new, id_, thread.authors[id_], reply)).id

    def _reply_to(self, thread: ModelThread, prompt: str) -> str | None:
        if prompt not in thread.history:
            return None
        behind = thread.history[thread.history.index(prompt) + 1 :][:1]
        return behind[0] if behind and thread.answers.get(behind[0]) == prompt else None

    def delete(self, key: ThreadKey, id_: str) -> list[str]:
        thread = self.thread(key)
        self.seen[key, id_] = "addressed"
        ended = []
        for job in list(thread.jobs):
            if id_ in (job.turn, *job.covers) and self._left_without(thread, job, id_):
                continue
            if id_ in (job.turn, *job.covers, job.id, job.replaces):
                ended.append(job.id)
                self._end(thread, job, "cancelled")
        if id_ in thread.history and (reply := self._reply_to(thread, id_)):
            self._drop(thread, reply)
        self._drop(thread, id_)
        return ended

    def _left_without(self, thread: ModelThread, job: ModelJob, id_: str) -> bool:
        """Whether the job has other messages to answer."""
        rest = [other for other in job.covers if other != id_]
        if job.turn == id_ and not rest:
            return False
        if job.turn == id_:
            job.turn = rest.pop()
        job.covers = rest
        if job.running:
            self._start_over(thread, job)
        return True

    def _start_over(self, thread: ModelThread, job: ModelJob) -> None:
        job.running, job.attempts = False, 0
        thread.gen += 1

    def regenerate(self, key: ThreadKey, reply: str, revision: str) -> tuple[str, str | None]:
        thread, id_ = self.thread(key), Job.id_for(key, reply, revision)
        if id_ in self.jobs:
            return "duplicate", id_
        for job in thread.jobs:
            if reply in (job.id, job.replaces):
                return "duplicate", job.id
        if reply not in thread.history:
            return "refused", None
        return "queued", self._open(thread, ModelJob(id_, thread.answers[reply], "U1", reply)).id

    def cancel(self, id_: str) -> bool:
        job = self.jobs.get(id_)
        if job is None or job.ended:
            return False
        if job.running:
            job.cancel = True
        else:
            self._end(self._thread_of(job), job, "cancelled")
        return True

    def _thread_of(self, job: ModelJob) -> ModelThread:
        return next(thread for thread in self.threads.values() if job in thread.jobs)

    def reset(self, key: ThreadKey) -> int:
        thread = self.thread(key)
        if not thread.exists:
            return 0
        number = len(thread.texts)
        for job in list(thread.jobs):
            self._end(thread, job, "cancelled")
        for part in (thread.texts, thread.authors, thread.answers, thread.revisions):
            part.clear()
        thread.mailbox, thread.history = [], []
        return number

    # -- cores ----------------------------------------------------------------------------------

    def claim(self, key: ThreadKey) -> ModelJob:
        thread = self.thread(key)
        assert thread.ready
        job = thread.jobs[0]
        job.running, job.shown = True, ""
        job.attempts += 1
        thread.gen += 1
        return job

    def verdict(self, key: ThreadKey, id_: str, gen: int) -> str:
        thread, job = self.thread(key), self.jobs[id_]
        if thread.gen != gen or job.ended or not job.running:
            return "fenced"
        return "cancelled" if job.cancel else "ok"

    def commit(self, key: ThreadKey, id_: str, text: str) -> None:
        thread, job = self.thread(key), self.jobs[id_]
        self._keep(thread, job, text)
        self._end(thread, job, "done")

    def _keep(self, thread: ModelThread, job: ModelJob, text: str) -> None:
        if job.replaces:
            if job.replaces not in thread.history:
                return
            at = thread.history.index(job.replaces)
            self._drop(thread, job.replaces)
        else:
            if job.turn in thread.mailbox:
                upto = thread.mailbox.index(job.turn) + 1
                thread.history += thread.mailbox[:upto]
                del thread.mailbox[:upto]
            at = thread.history.index(job.turn) + 1
        if text:
            thread.history.insert(at, job.id)
            thread.texts[job.id], thread.answers[job.id] = text, job.turn

    def fail(self, key: ThreadKey, id_: str, *, retry: bool) -> None:
        thread, job = self.thread(key), self.jobs[id_]
        if retry and job.cancel:
            self.commit(key, id_, job.shown)
        elif retry and job.attempts < MAX_ATTEMPTS:
            job.running, thread.delayed = False, True
            thread.gen += 1
        else:
            self._end(thread, job, "dead" if retry else "failed")

    def release(self, key: ThreadKey, id_: str) -> None:
        job = self.jobs[id_]
        if job.cancel:
            self.commit(key, id_, job.shown)
        else:
            attempts = job.attempts
            self._start_over(self.thread(key), job)
            job.attempts = attempts - 1

    def lose_lease(self, key: ThreadKey) -> None:
        thread = self.thread(key)
        job = thread.running
        assert job
        if job.cancel:
            self.commit(key, job.id, job.shown)
        elif job.attempts >= MAX_ATTEMPTS:
            self._end(thread, job, "dead")
        else:
            attempts = job.attempts
            self._start_over(thread, job)
            job.attempts = attempts

    # -- both -----------------------------------------------------------------------------------

    def _end(self, thread: ModelThread, job: ModelJob, how: str) -> None:
        if job.running:
            thread.gen += 1
        if thread.jobs[0] is job:
            thread.delayed = False
        job.ended, job.running = how, False
        thread.jobs.remove(job)

    def _drop(self, thread: ModelThread, id_: str) -> None:
        for order in (thread.history, thread.mailbox):
            if id_ in order:
                order.remove(id_)
        for part in (thread.texts, thread.authors, thread.answers, thread.revisions):
            part.pop(id_, None)
