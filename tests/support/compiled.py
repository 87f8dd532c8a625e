"""Facts read off the text of a compiled program."""

import re


def only_in_branches(text: str, operation: str) -> bool:
    """Whether every such operation is computed in a branch of a conditional, and there is one.

    A compiler takes nothing out of a branch, in front of a loop for one.
    """
    computations = {}
    for part in re.split(r"\n(?=%|ENTRY )", text)[1:]:
        head, *lines = part.splitlines()
        computations[re.search(r"%[\w.-]+", head)[0]] = head, lines
    reached, todo = set(), [name for name, (head, _) in computations.items() if "ENTRY" in head]
    while todo:
        reached.add(name := todo.pop())
        # What a conditional calls is not followed.
        lines = [line for line in computations[name][1] if " conditional(" not in line]
        called = set(re.findall(r"%[\w.-]+", "\n".join(lines)))
        todo += called & set(computations) - reached
    found = {
        name
        for name, (_, lines) in computations.items()
        if any(f" {operation}(" in line for line in lines)
    }
    return bool(found) and not found & reached
