"""Whether callers of one version can ask another without changing anything."""

from __future__ import annotations

from cloche.core.signature import Field, Signature


def breaks(before: Signature, after: Signature) -> tuple[str, ...]:
    """What callers would have to change, a sentence each; empty where nothing.

    Sets of categories may change: values out of them are marked, and every version has seen others. Classes may
    not, as callers go by them.
    """
    inputs = {field.name: field for field in after.inputs}
    outputs = {field.name: field for field in after.outputs}
    words = []
    for old in before.inputs:
        words += _differs("input", old, inputs.pop(old.name, None))
    words += [f"input {name} is new and must be sent" for name, field in inputs.items() if not field.takes_null]
    for old in before.outputs:
        found = outputs.get(old.name)
        words += _differs("output", old, found)
        if found is not None and old.classes != found.classes:
            words.append(f"the classes of output {old.name} differ")
    return tuple(words)


def _differs(what: str, old: Field, new: Field | None) -> list[str]:
    if new is None:
        return [f"{what} {old.name} is gone"]
    if (old.datatype, old.shape) != (new.datatype, new.shape):
        was, now = (f"{field.datatype} {list(field.shape)}" for field in (old, new))
        return [f"{what} {old.name} was {was}, is {now}"]
    if what == "input" and old.missing and not new.missing:
        return [f"input {old.name} may no longer be missing"]
    if what == "output" and new.missing and not old.missing:
        return [f"output {old.name} may be missing now"]
    return []
