"""`cluster submit`: any other command of ours, as a job on a cluster."""

import sys
from dataclasses import dataclass, field
from typing import ClassVar

import tyro

from gristmill.core.action import Action
from gristmill.core.errors import BadInputError
from gristmill.core.io import is_local


@dataclass(frozen=True, kw_only=True)
class SubmitWords(Action):
    """Send GROUP VERB and its options to a cluster, follow the output, end with its exit code."""

    takes_more: ClassVar[bool] = True
    address: str = "http://127.0.0.1:8265"
    """The cluster's dashboard, through a tunnel or on this machine."""
    working_dir: str = "."
    """The checkout, uploaded without what .gitignore names, tests and docs."""
    installed: bool = False
    """Upload nothing: the cluster's image holds the package."""
    detach: bool = False
    """Print the submission's id and come back at once."""
    words: tyro.conf.Suppress[tuple[str, ...]] = field(default=())
    """GROUP VERB and its options."""

    def act(self) -> int:
        """Submit; follow until the job ends."""
        from gristmill.clusters.submission import connect, follow, submit

        self._check()
        client = connect(self.address)
        name = submit(client, self.words, working_dir="" if self.installed else self.working_dir)
        print(f"submitted {name}", file=sys.stderr)
        if self.detach:
            print(name)
            return 0
        try:
            return follow(client, name)
        except KeyboardInterrupt:
            print(
                f"{name} goes on; end it with: ray job stop {name} --address {self.address}",
                file=sys.stderr,
            )
            return 130

    def _check(self) -> None:
        """The words name a command, before anything is uploaded."""
        from gristmill.recipes.commands import COMMANDS

        group, verb = (*self.words, "", "")[:2]
        verbs = COMMANDS.get(group, {})
        if "" not in verbs and (verb not in verbs or verbs[verb].action):
            known = [
                f"{g} {v}".strip()
                for g, vs in COMMANDS.items()
                for v, c in vs.items()
                if not c.action
            ]
            raise BadInputError(
                f"no job {group!r} {verb!r}; write gristmill cluster submit GROUP VERB and its "
                f"options; known: {', '.join(known)}"
            )
        if "--out" in self.words[:-1]:
            out = self.words[self.words.index("--out") + 1]
            if is_local(out) and not self.address.startswith(("http://127.", "http://localhost")):
                print(
                    f"warning: --out {out} is a path of the cluster's machines, gone with them; "
                    "take a URI",
                    file=sys.stderr,
                )
