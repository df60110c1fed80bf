"""A look at a few shards before anything starts: can they be trained on at all?"""

import logging
import re
import tarfile

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.training.shards import IMAGE_MEMBERS, TEXT_MEMBER, Shard, Source

HEADERS_READ = 64
"""Member names read from the start of a shard to see what it holds."""
SHARDS_SAMPLED = 5
logger = logging.getLogger(__name__)


def check_members(sources: list[Source]) -> None:
    """Look at the first members of shards spread over each source: are there pairs?

    This sees in a second what the data loader could only find out after a whole pass; open_clip
    hangs on such data (open_clip#1016). Most often a look cannot prove that there are none, so it
    only warns, and the loader's bound on drops in a row ends the training if there really are none.

    Raises:
        BadInputError: All shards were read to their end, and none holds a pair.
    """
    for source in sources:
        looked = [_members(shard.uri) for shard in spread(source.shards)]
        if any(_has_pair(names) for names, _ in looked):
            continue
        names = [name for listing, _ in looked for name in listing]
        found = f"members such as {', '.join(names[:3]) or '(none)'}"
        if len(looked) == len(source.shards) and all(whole for _, whole in looked):
            raise no_pairs(source.uri, f"its shards hold {found}")
        logger.warning(
            "no caption and image of one key among the first members of %d shards of %s (%s); "
            "going on, since others may have some",
            len(looked),
            source.uri,
            found,
        )


def spread(shards: tuple[Shard, ...]) -> list[Shard]:
    """A few shards at even distances, the first and the last among them."""
    if len(shards) <= SHARDS_SAMPLED:
        return list(shards)
    last = len(shards) - 1
    return [shards[i * last // (SHARDS_SAMPLED - 1)] for i in range(SHARDS_SAMPLED)]


def no_pairs(where: str, found: str) -> BadInputError:
    """The error for data that has nothing to train on."""
    return BadInputError(
        f"no sample in {where} has both caption and image: {found}; a sample needs "
        f"KEY.{TEXT_MEMBER} and one of {', '.join('KEY.' + end for end in IMAGE_MEMBERS)}"
    )


def _members(uri: str) -> tuple[list[str], bool]:
    """The first member names of a tar, and whether they are all it has.

    A broken one yields what comes before it breaks; it is counted when it is read.
    """
    names: list[str] = []
    try:
        with io.open_read(uri) as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                names.append(member.name)
                if len(names) == HEADERS_READ:
                    return names, False
    except (tarfile.TarError, EOFError):
        return names, False
    return names, True


def _has_pair(names: list[str]) -> bool:
    endings: dict[str, set[str]] = {}
    for name in names:
        match = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", name)
        if match:
            endings.setdefault(match.group(1), set()).add(match.group(2).lower())
    return any(TEXT_MEMBER in e and e & set(IMAGE_MEMBERS) for e in endings.values())
