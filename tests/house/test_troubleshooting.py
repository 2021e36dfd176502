"""docs/troubleshooting.md has an entry for each message in the code, under its exit code, and no others."""

import ast
import functools
import itertools
import re
from pathlib import Path

from dask_classifier import errors
from dask_classifier.cli.app import app

ROOT = Path(__file__).parents[2]
TREES = [ast.parse(path.read_text()) for path in sorted((ROOT / "dask_classifier").rglob("*.py"))]
# functions that make a message of their first argument
MADE = dict.fromkeys(["explain", "explained"], "{}: …")
MADE |= {"explaining": "Cannot {} …: ….", "check_bring_up": "{} after … seconds."}


def nodes(tree, kind):
    return [node for node in ast.walk(tree) if isinstance(node, kind)]


@functools.cache
def error_classes():
    found, classes = {"DaskClassifyError"}, [each for tree in TREES for each in nodes(tree, ast.ClassDef)]
    while more := {each.name for each in classes if found & set(map(ast.unparse, each.bases))} - found:
        found |= more
    return found


def first_arguments(call, tree):
    """What a call is given first; where that is what a function of the same file returns, its answers."""
    first = call.args[0].value if isinstance(call.args[0], ast.Starred) else call.args[0]
    if not isinstance(first, ast.Call):
        return [first]
    asked = [each for each in nodes(tree, ast.FunctionDef) if each.name == ast.unparse(first.func)]
    answers = [each.value for function in asked for each in nodes(function, ast.Return)]
    return [each.elts[0] if isinstance(each, ast.Tuple) else each for each in answers]


def texts(node, known):
    """What an expression may say, with … for all that is known only when it happens; `known` are variables."""
    if isinstance(node, ast.JoinedStr):
        return ["".join(each) for each in itertools.product(*(texts(part, known) for part in node.values))]
    if isinstance(node, ast.FormattedValue):
        return texts(node.value, known)
    if isinstance(node, ast.IfExp):
        either = texts(node.body, known) + texts(node.orelse, known)
        return either if all(either) else ["…"]
    if isinstance(value := known.get(ast.unparse(node)), ast.JoinedStr | ast.IfExp):
        return texts(value, {})
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else ["…"]


def heading(message):
    return re.sub(r"(?<=\.)…$", "", re.sub(r"…(\s*…)+", "…", message))


@functools.cache
def messages():
    """Each message, and its exit codes; None for one that the message alone does not show."""
    shapes, found = dict.fromkeys(error_classes() | {"warn", "note"}, "{}") | MADE, {}
    for tree in TREES:
        made = shapes | ({"cls": "{}"} if error_classes() & {each.name for each in nodes(tree, ast.ClassDef)} else {})
        known = {ast.unparse(each.targets[0]): each.value for each in nodes(tree, ast.Assign)}
        for call in nodes(tree, ast.Call):
            name = ast.unparse(call.func).rpartition(".")[2]
            if call.args and (shape := made.get(name)):
                code = getattr(getattr(errors, name, None), "exit_code", None)
                given = [text for each in first_arguments(call, tree) for text in texts(each, known)]
                for text in given:
                    found.setdefault(heading(shape.format(text)), set()).add(code)
    made_of_any = {heading(each.format("…")) for each in MADE.values()}
    return {text: codes for text, codes in found.items() if re.search(r"\w", text) and text not in made_of_any}


# words of a text that was translated, and what is written instead
WORST = {
    r"is no \w|are no \w": "is not a",
    r"\black(s|ing)?\b": "does not have",
    r"\btold\b|\btells\b": "reported, returned",
    r"cannot be had|could be had": "is not available",
    r"says nothing about": "has no effect with",
    r"look whether|looks whether": "check that",
    r"\bmend": "fix",
    r"set aside": "quarantined",
    r"(are|is) gone": "have terminated",
    r"ends? (itself|themselves)": "shut themselves down",
    r"\bpack(ed|s)?\b": "compressed",
    r"unpack": "decompress",
    r"what is done": "finished blocks",
    r"come what may|\bthus\b|\bhence\b|\bshall\b": "rewrite it",
    r"there is no telling": "is not given",
    r"\bmachines?\b(?! type)": "instance, or computer",
}
ALLOWED = ("There is no run in", "There is no cluster named")


def help_texts():
    """The help of each command and option."""
    for command in (app, *app.commands.values()):
        yield command.help or ""
        yield from (option.help or "" for option in command.params if hasattr(option, "help"))


def test_messages_and_help_have_none_of_the_worst_words():
    for text in [*messages(), *help_texts()]:
        for pattern, better in WORST.items():
            if not text.startswith(ALLOWED):
                assert not re.search(pattern, text, re.IGNORECASE), f"{text!r}: write {better!r}"


def test_each_message_has_an_entry_and_each_entry_a_message():
    headings = re.findall(r"^### (.+)$", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(headings) == len(set(headings)), "an entry twice"
    assert sorted(set(messages()) - set(headings)) == [], "messages without an entry"
    assert sorted(set(headings) - set(messages())) == [], "entries without a message"


def test_each_entry_stands_under_an_exit_code_that_its_message_has():
    page, checked = (ROOT / "docs/troubleshooting.md").read_text(), 0
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        code = int(re.search(r"exit code (\d+)", section, re.IGNORECASE)[1])
        for text in re.findall(r"^### (.+)$", section, re.MULTILINE):
            codes = messages()[text]
            assert None in codes or code in codes, f"{text} has the exit code {codes}, not {code}"
            checked += None not in codes
    assert checked > 200
