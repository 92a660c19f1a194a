"""The identity of a run: a hash of what it computes, however its parameters were typed."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

# Where and how visibly a run is computed, not what it computes: the same experiment elsewhere keeps its identity.
NOT_IDENTITY = frozenset(
    "name recipe runs data_root download device processes nodes rendezvous join_minutes workers threads restarts "
    "log_interval checkpoint_minutes hang_minutes start_over".split()
)
MOST_SPELLINGS = 256


def identity_of(changes: Mapping[str, Any]) -> str:
    """Hash (16 hex digits) of the fields that differ from their default, so that a new field orphans no old run."""
    told = {name: value for name, value in changes.items() if name not in NOT_IDENTITY}
    if "plugin" in told:  # their contents, whatever the files are called and in which order they are given
        told["plugin"] = sorted(word.rpartition("@")[2] for word in told["plugin"])
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8).hexdigest()


def earlier_identities(changes: Mapping[str, Any]) -> Iterator[str]:
    """Identities that earlier versions gave to the same run: they hashed numbers in arguments as typed, 4.0 or 4."""
    args = {name: changes[name] for name in ("model_args", "data_args") if name in changes}
    each = (dict(zip(args, values, strict=True)) for values in itertools.product(*map(_spellings, args.values())))
    for spelled in itertools.islice(each, 1, MOST_SPELLINGS):  # the first is as it is now
        yield identity_of({**changes, **spelled})


def _spellings(value: Any) -> Iterator[Any]:
    """``value``, and then the same with its whole numbers, and those in it, written in every other way."""
    if isinstance(value, dict):
        yield from (dict(zip(value, each, strict=True)) for each in _in_turn(value.values()))
    elif isinstance(value, list):
        yield from map(list, _in_turn(value))
    else:
        yield value
        if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
            yield int(value)
        elif isinstance(value, int):
            yield float(value)


def _in_turn(values: Any) -> Iterator[tuple[Any, ...]]:
    return itertools.product(*map(_spellings, values))
