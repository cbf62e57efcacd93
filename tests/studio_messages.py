"""Every message that the studio's pages and scripts show, to be translated.

    python tests/studio_messages.py de      # prints what de.json lacks, and what it has for nothing
"""

import json
import re
import sys
from functools import cache
from pathlib import Path

STUDIO = Path(__file__).parents[1] / "src" / "harken" / "studio"
_TEMPLATE = re.compile(r'\b_\("((?:[^"\\]|\\.)*)"\)')
_SCRIPT = re.compile(r'(?:\bt\(\s*|\bwords: )"((?:[^"\\]|\\.)*)"')
_SAYING = re.compile(r'^\s*(?:\w+: )?\[?"([A-Z](?:[^"\\]|\\.)*)",?(?: "((?:[^"\\]|\\.)*)")?\]?,?$', re.M)


@cache
def messages(labelers=False):
    """Every message of the pages; with `labelers` only of those that labelers see."""
    found = set()
    for path in (STUDIO / "templates").glob("*.html"):
        if not (labelers and path.name.startswith(("lead", "table", "setup"))):
            found |= set(_TEMPLATE.findall(path.read_text(encoding="utf-8")))
    for path in (STUDIO / "static").rglob("*.js"):
        if path.name != "lead.js":
            found |= set(_SCRIPT.findall(path.read_text(encoding="utf-8")))
    screens = (STUDIO / "static" / "screens.js").read_text(encoding="utf-8").partition("export")[0]
    found |= {words for pair in _SAYING.findall(screens) for words in pair if words}
    examples = {words for words in found if "…" in words and words[0].islower() and "{" not in words}  # of comments
    return frozenset(words.replace('\\"', '"') for words in (found | _labels(labelers)) - examples)


def _labels(labelers):
    """Words that stand in tables of the program and are shown as they are."""
    from harken.studio.pages import label
    from harken.studio.tasks import PROMPT_FLAGS, TASKS, USE_CASES
    from harken.studio.tasks.rate_and_rank import FLAGS
    from harken.studio.work.mine import QUEUES
    found = {words for _, words in (*label.REASONS, *label.CATEGORIES, *label.SCOPES)} | set(QUEUES.values())
    found |= {words for words, _ in label.ORDERS.values()} | {task.title for task in TASKS.values()}
    found |= {*PROMPT_FLAGS.values(), *FLAGS.values(), "System", "User", "Assistant", "Tool", "Overall quality", "worst", "best"}
    found |= {words for how in ("much", "slightly", "") for words in (how, f"{how} better".strip()) if words}
    found |= {{"open_qa": "open QA", "closed_qa": "closed QA"}.get(name, name.replace("_", " ")) for name in USE_CASES}
    if labelers:
        return found
    from harken.studio.api.review import READINGS
    from harken.studio.pages import table
    from harken.studio.work.table import ANSWER_STATES
    tables = (table.LISTS, table.ITEM_ORDER, table.ANSWER_ORDER, ANSWER_STATES, READINGS)
    return found.union(*(set(words.values()) for words in tables))


if __name__ == "__main__":
    known = json.loads((STUDIO / "languages" / f"{sys.argv[1]}.json").read_text(encoding="utf-8"))
    print(json.dumps(sorted(messages() - known.keys()), ensure_ascii=False, indent=0))
    print("for nothing:", sorted(known.keys() - messages()))
