"""Content for one topic or many: each answer is paid for once, whatever happens in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from jinja2 import Template

from agentlab._support.progress_bar import bar
from agentlab.content._journal import Journal
from agentlab.content._sending import Sender
from agentlab.content._settings import Settings
from agentlab.content._topics import ContentType, Job, jobs
from agentlab.content._work import Content, Work
from agentlab.errors import JournalError
from agentlab.resilience import amap
from agentlab.workflow import Workflow

if TYPE_CHECKING:
    from agentlab.engines.dask import Cluster

_SUMMARY = Template(Path(__file__).with_name("summary.jinja").read_text(encoding="utf-8"))


class ContentSystem(Sender):
    """Agents that research, write, edit and publish: a workflow, "blog" or "comprehensive".

    Args:
        out: A folder for the files, and for the journal that lets another run go on; without it
            nothing is written to the disk.
        journal: A file or URL for the journal instead; see `Journal`.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        out: str | Path | None = None,
        journal: str | Path | None = None,
    ):
        settings, folder = settings or Settings(), None if out is None else Path(out)
        if journal is None and folder is not None:
            journal = folder / "journal.sqlite"
        self._workflows = {name: Workflow.load(name) for name in get_args(ContentType)}
        super().__init__(settings, Journal(journal), folder)

    async def generate_content(self, topic: str, content_type: ContentType = "blog") -> Content:
        """Write about one topic; a failure is a status. What was answered is not asked again."""
        (content,) = await self.batch_generate([topic], content_type)
        return content

    async def batch_generate(
        self,
        topics: Iterable[str],
        content_type: ContentType = "blog",
        *,
        progress: bool = False,
        cluster: str | Cluster | None = None,
    ) -> list[Content]:
        """Write about many topics, each once; one that fails is tried again after all others.

        Args:
            cluster: Where the requests are sent from: a `Cluster`, a scheduler's address, or
                "local" for processes that are started here; None sends from this one.
        """
        given = jobs(topics, content_type)
        self.begin()
        async with AsyncExitStack() as stack:
            if isinstance(cluster, str):
                from agentlab.engines.dask import Cluster  # takes a second to import

                address = None if cluster == "local" else cluster
                cluster = await stack.enter_async_context(Cluster(address))
            if cluster is not None:
                stack.callback(setattr, self, "reply", self.reply)
                self.reply = cluster.reply
            with bar(total=len(given), name=content_type, shown=progress) as shown:
                return await self._all(given, shown.update)

    async def _all(self, given: list[Job], ended: Callable[[], object]) -> list[Content]:
        contents: dict[Job, Content] = {}
        waiting, idle = given, 0
        while waiting:
            recorded, self.nobody_answers = self.recorded, None
            async for job, content, error in amap(
                self._generate,
                waiting,
                max_concurrency=self.settings.max_concurrent_agents,
                max_memory_mb=self.settings.max_memory_mb,
            ):
                if content is None:
                    raise error or AssertionError("an outcome is a result or an error")
                contents[job] = content
                if content.status != "failed":
                    ended()
            waiting = [job for job in waiting if contents[job].status == "failed"]
            idle = 0 if self.recorded > recorded else idle + 1
            if self.nobody_answers and idle == self.settings.quarantine_after:
                self.stop(f"nothing is answered: {self.nobody_answers}")
                contents |= {job: contents[job]._replace(status="left") for job in waiting}
                break
        return [contents[job] for job in given]

    async def _generate(self, job: Job) -> Content:
        async with self.turns[job]:  # one batch at a time
            return await Work(job, self._workflows[job.content_type], self).run()


def summary(contents: Iterable[Content], journal: Journal, settings: Settings) -> str:
    """Say in a few lines what became of a batch's topics, and what all of it cost so far."""
    contents = list(contents)
    facts: dict[str, Any] = {"contents": contents}
    try:
        facts["bill"] = bill = journal.bill()
        facts["cost"] = settings.dollars(bill)
    except JournalError as error:
        facts["unread"] = error
    facts["counts"] = Counter(content.status for content in contents)
    facts["retried"] = sum(content.metrics.attempts > 1 for content in contents)
    return _SUMMARY.render(facts)
