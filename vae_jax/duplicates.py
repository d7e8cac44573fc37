"""Lists the tracks of a run that are the same file or the same recording, and those that are alike.

vae-jax duplicates RUN [--nofingerprint] [--output=OUT.csv]

RUN is the results folder of a run. Nothing is deleted. RUN/duplicates.csv has a row for each track
that is the same as another: its group, its id, the kind and the similarity.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from vae_jax import api, process
from vae_jax.collection import duplicates
from vae_jax.collection.duplicates import SAID
from vae_jax.errors import UserError
from vae_jax.run import DUPLICATES
from vae_jax.storage import files

SHOWN = 20  # groups that are printed


def main(argv: Sequence[str]) -> None:
    """Find them, print them and write them."""
    if len(argv) != 2:
        raise UserError("name one results folder: vae-jax duplicates results/track.")
    given = flags.FLAGS
    run = api.load(argv[1])
    found = duplicates.find(run, given.fingerprint)
    path = Path(given.output or run.outdir / DUPLICATES)
    rows = [vars(one) | {"similarity": f"{one.similarity:.4f}"} for one in found]
    files.write_csv(path, ("group", "id", "kind", "similarity"), rows)
    print("\n".join([*_report(found), f"written: {path}"]))


def _report(found: Sequence[duplicates.Same]) -> list[str]:
    """Say how many groups there are of each kind, and list the first ones."""
    groups: dict[int, list[duplicates.Same]] = defaultdict(list)
    for one in found:
        groups[one.group].append(one)
    kinds = Counter(members[-1].kind for members in groups.values())
    counted = [f"{kinds[kind]} groups are {said}" for kind, said in SAID.items() if kinds[kind]]
    lines = [f"{'; '.join(counted) or 'no two tracks are the same'}."]
    for members in [*groups.values()][:SHOWN]:
        lines.append(f"  {SAID[members[-1].kind]}: {', '.join(one.id for one in members)}")
    return lines + (["  ..."] if len(groups) > SHOWN else [])


if __name__ == "__main__":
    flags.DEFINE_bool("fingerprint", True, "Compare the sound; else equal files and alike tracks.")
    flags.DEFINE_string("output", None, "The list, FILE.csv; default: RUN/duplicates.csv.")
    process.run_command(main)
