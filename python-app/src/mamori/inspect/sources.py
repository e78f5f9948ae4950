"""Where policy, lists and applications come from, and when they are read anew.

A file that cannot be read never takes away what is in force: the old policy stays, the old lists stay; what is wrong is told
once, and shown by `mamori status`. At the start, when there is no old one, a bad policy is replaced by the last one that was good
(the supervisor keeps it), and that by the defaults: block what is harmful, log the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mamori.inspect.applications import own_applications
from mamori.inspect.http_url import Url
from mamori.inspect.judge import Judge, Lists
from mamori.inspect.lists.fileformat import ListError
from mamori.inspect.lists.listfile import Hit, ListFile
from mamori.inspect.policy import Mode, Policy
from mamori.inspect.policy_file import PolicyFile, file_identity


class NoLists:
    """Before the first list has come."""

    def lookup_name(self, name: str) -> Sequence[Hit]:  # noqa: ARG002
        return ()

    def lookup_url(self, url: Url) -> Sequence[Hit]:  # noqa: ARG002
        return ()


class CarefulLists:
    """The compiled lists; a damaged block says nothing, and is told once."""

    def __init__(self, file: ListFile, complain: Callable[[str], None]) -> None:
        self.file = file
        self._complain = complain
        self._has_complained = False

    def lookup_name(self, name: str) -> Sequence[Hit]:
        try:
            return self.file.lookup_name(name)
        except ListError as error:
            return self._damaged(error)

    def lookup_url(self, url: Url) -> Sequence[Hit]:
        try:
            return self.file.lookup_url(url)
        except ListError as error:
            return self._damaged(error)

    def _damaged(self, error: ListError) -> Sequence[Hit]:
        if not self._has_complained:
            self._has_complained = True
            self._complain(str(error))
        return ()


class JudgeSource:
    """Makes the judge of what lies on disk, and another one when that has changed."""

    def __init__(self, policy: Path, accepted: Path, lists: Path, complain: Callable[[str], None]) -> None:
        self._policy = PolicyFile(policy, accepted, lambda text: complain(f"policy: {text}"))
        self._lists_path = lists
        self._complain = complain
        self._lists: Lists = NoLists()
        self._applications = own_applications()
        self._list_problem = ""

    def load(self) -> Judge:
        """The first judge. It always comes: see the module."""
        self._policy.load()
        self._read_lists()
        return self._judge()

    def reload(self) -> Judge | None:
        """Another judge if policy or lists have changed and are sound."""
        changed = self._policy.reload()
        if isinstance(self._lists, NoLists) or (isinstance(self._lists, CarefulLists) and self._lists.file.is_stale()):
            changed = self._read_lists() or changed
        return self._judge() if changed else None

    def describe(self) -> dict[str, Any]:
        """For the report: what is in force, and what is wrong with what is not."""
        lists = self._lists
        problems = {"policy": self._policy.problem, "lists": self._list_problem}
        return {
            "lists": [info.key for info in lists.file.lists] if isinstance(lists, CarefulLists) else [],
            "list_records": lists.file.records if isinstance(lists, CarefulLists) else 0,
            "policy_stamp": self._policy.stamp,
            "problems": {name: problem for name, problem in problems.items() if problem},
        }

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy.policy

    @property
    def wants_signatures(self) -> bool:
        """Whether the policy in force has the signature engine look."""
        return self._policy.policy.ips.mode is not Mode.OFF

    def _judge(self) -> Judge:
        return Judge(self._policy.policy, self._lists, self._applications)

    def _read_lists(self) -> bool:
        if file_identity(self._lists_path) is None:
            return False
        try:
            opened = ListFile.open(self._lists_path)
        except ListError as error:
            self._note(str(error))
            return False
        # The old file stays mapped until the old judge is gone: connections may be in the middle of asking it.
        self._lists = CarefulLists(opened, self._note)
        self._list_problem = ""
        return True

    def _note(self, text: str) -> None:
        if self._list_problem != text:
            self._list_problem = text
            self._complain(f"lists: {text}")
