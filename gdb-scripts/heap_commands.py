"""heapinspect in a gdb with Python: completion, help, expressions of any language, functions.

Sourced by heap.gdb, which has the commands themselves: nothing here reads a heap. What is asked goes
through _heap_pipe; the two functions ask heapinspect for JSON.
"""
import json
import os
import subprocess

import gdb

# name, what it answers, what its argument is: "" none, "options", "expression"
COMMANDS = [
    ("summary", "One screen: allocators, totals, fragmentation, largest leaks.", "options"),
    ("arenas", "Each arena: bytes from the system, live, free, cached.", "options"),
    ("map", "A picture of the chunks in address order.", "options"),
    ("chunks", "Every chunk, one a line.", "options"),
    ("leaks", "Blocks that nothing leads to: direct, indirect, possible.", "options"),
    ("whatis", "What the value of an expression points to.", "expression"),
    ("refs", "What points to the block that holds the value of an expression.", "expression"),
    ("path", "Why a block is alive: a shortest chain from a root to it.", "expression"),
    ("top", "What the heap is made of.", "options"),
    ("verify", "Check every rule of the heap's format.", "options"),
]
OPTIONS = {
    "": ["--json", "--limit=", "--color=", "-o", "-v", "-q", "--allocator=", "--sysroot="],
    "chunks": ["--state=live", "--state=free", "--state=cached", "--min-size=", "--max-size=",
               "--arena="],
    "leaks": ["--interior=reachable", "--unaligned", "--tag-mask=", "--roots=+anon"],
    "top": ["--by=stack", "--by=size", "--by=arena", "--by=thread"],
}
SCRIPTS = os.path.dirname(os.path.abspath(__file__))


def address_of(text):
    """The value of an expression as an address; an array or a structure stands for its place."""
    value = gdb.parse_and_eval(text)
    code = value.type.strip_typedefs().code
    if code in (gdb.TYPE_CODE_ARRAY, gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION) and value.address:
        value = value.address
    return int(value) & (1 << 64) - 1


class HeapCommand(gdb.Command):
    """One subcommand; its help is made from the table above."""

    def __init__(self, name, text, argument):
        self.name, self.argument = name, argument
        usage = "EXPRESSION" if argument == "expression" else "[OPTION]..."
        # gdb shows the class member __doc__ as help
        self.__doc__ = f"{text}\nUsage: heap {name} {usage}"
        completer = gdb.COMPLETE_EXPRESSION if argument == "expression" else None
        if completer is None:
            super().__init__(f"heap {name}", gdb.COMMAND_DATA)
        else:
            super().__init__(f"heap {name}", gdb.COMMAND_DATA, completer)

    def invoke(self, argument, from_tty):
        if self.argument == "expression":
            if not argument.strip():
                raise gdb.GdbError(f"heap {self.name}: which address? "
                                   f"Usage: heap {self.name} EXPRESSION")
            argument = hex(address_of(argument))
        gdb.execute(f"_heap_pipe {self.name} {argument}", from_tty)


class HeapOptionsCommand(HeapCommand):
    """A subcommand that takes heapinspect's options: they can be completed."""

    def complete(self, text, word):
        known = OPTIONS.get(self.name, []) + OPTIONS[""]
        # gdb's word starts after the last - or =
        start = len(text) - len(word)
        begun = text[:start].split(" ")[-1]
        return [option[len(begun):] for option in known if option.startswith(begun + word)]


class HeapFunction(gdb.Function):
    """A function that asks `whatis` about one address."""

    def ask(self, pointer):
        address = int(pointer) & (1 << 64) - 1
        state = gdb.execute("_heap_state", to_string=True)
        program = gdb.convenience_variable("heapinspect")
        done = subprocess.run(
            ["sh", os.path.join(SCRIPTS, "heap-pipe"), program.string() if program else "",
             "whatis", hex(address), "--json"],
            input=state, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise gdb.GdbError(done.stderr.strip() or "heapinspect failed")
        return json.loads(done.stdout)["answers"][0]["block"]


class HeapSize(HeapFunction):
    """$heap_size(p): bytes of the block that p points into; 0 when it points into none."""

    def __init__(self):
        super().__init__("heap_size")

    def invoke(self, pointer):
        block = self.ask(pointer)
        return block["size"] if block else 0


class HeapBlock(HeapFunction):
    """$heap_block(p): the start of the block that p points into; 0 when it points into none."""

    def __init__(self):
        super().__init__("heap_block")

    def invoke(self, pointer):
        block = self.ask(pointer)
        start = int(block["address"], 16) if block else 0
        return gdb.Value(start).cast(gdb.lookup_type("void").pointer())


for _name, _text, _argument in COMMANDS:
    (HeapCommand if _argument == "expression" else HeapOptionsCommand)(_name, _text, _argument)
HeapSize()
HeapBlock()
