"""What hooks give jobs along on their way into the store: trace context, and what else they put into the carrier."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

from msgspec.structs import replace

from windlass import follow, options
from windlass.hook import Hook, Sending, logger, who_hear
from windlass.model import NewJob
from windlass.vault import Vault


class Carrier:
    """Calls `sending` of hooks around the writing of jobs."""

    def __init__(self, hooks: Sequence[Hook], vault: Vault) -> None:
        self._hooks = who_hear(hooks, "sending")
        self._vault = vault

    @contextlib.contextmanager
    def sending(self, jobs: Sequence[NewJob]) -> Iterator[Sequence[NewJob]]:
        """Around the writing: gives the jobs to write."""
        news = [Sending(id=job.id, task=job.task, queue=job.queue, size=len(job.args)) for job in jobs]
        with contextlib.ExitStack() as stack:
            for hook in self._hooks:
                stack.enter_context(guarded(hook, news))
            yield [self._with(job, new.carrier) if new.carrier else job for job, new in zip(jobs, news, strict=True)]

    def _with(self, job: NewJob, carrier: dict[str, str]) -> NewJob:
        """A job that carries this along, as those do that follow it."""
        vault, add = self._vault, partial(options.with_carrier, carrier=carrier)
        own = None if job.options is None else vault.open(job.options, job.id, job.task, "options")
        after = follow.with_options(follow.opened(job.follow, job.id, vault), add)
        stored = vault.seal(add(own), job.id, job.task, "options")
        return replace(job, options=stored, follow=follow.sealed(after, job.id, vault))


@contextlib.contextmanager
def guarded(hook: Hook, jobs: Sequence[Sending]) -> Iterator[None]:
    """`sending` of one hook. What it raises itself is logged; what the writing raises goes on, whatever it says."""
    name = type(hook).__name__
    block = contextlib.ExitStack()
    try:
        block.enter_context(hook.sending(jobs))
    except Exception:
        logger.exception("%s.sending failed; the jobs are stored all the same", name)
    failed: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failed = error
        raise
    finally:
        try:
            block.__exit__(type(failed) if failed else None, failed, failed.__traceback__ if failed else None)
        except BaseException as error:
            if error is not failed:
                logger.exception("%s.sending failed; what became of the jobs stands", name)
