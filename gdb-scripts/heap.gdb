# heapinspect in gdb: what is in the heap of the process or core that gdb holds.
#
#     source gdb-scripts/heap.gdb
#     heap                      one screen about the heap
#     heap leaks                what nothing points to any more
#     heap whatis p->next       what the value of an expression points to
#     help heap                 all of it
#
# One engine: these commands walk no heap. They print what gdb knows (process, core, registers of
# every thread) into a pipe and heapinspect does the rest, so that a gdb without Python will do.
# Where gdb has Python, heap_commands.py adds completion, help for each command, any expression of
# any language, and the functions $heap_size(p) and $heap_block(p).
#
# Settings, all optional, before or after sourcing:
#     set $heapinspect = "/path/to/heapinspect"    which program to run
#     set $heap_scripts = "/path/to/gdb-scripts"   where this file lies
#     set $heap_python = 0                         before sourcing: do without Python

# Where this file lies: while gdb reads it, it holds it open, and a shell can see that. The answer
# comes back by a file in a folder whose number is the shell's exit status.
if $_isvoid($heap_scripts)
    shell umask 077; n=1; until mkdir /tmp/heap.gdb.$n 2>/dev/null; do n=$((n + 1)); [ $n -gt 250 ] && exit 255; done; for fd in /proc/$PPID/fd/*; do f=$(readlink "$fd"); case $f in */heap.gdb) printf 'set $heap_scripts = "%s"\n' "${f%/heap.gdb}" ;; esac; done >/tmp/heap.gdb.$n/where; exit $n
    if $_shell_exitcode < 255
        eval "source /tmp/heap.gdb.%d/where", $_shell_exitcode
        eval "shell rm -rf /tmp/heap.gdb.%d", $_shell_exitcode
    end
end

# What gdb knows, as text. Of each thread the registers as they are, whichever frame is selected.
define _heap_state
    info inferiors
    info files
    with width 0 -- with height 0 -- thread apply all -s frame apply level 0 -q info registers
    with width 0 -- with height 0 -- thread apply all -s frame apply level 0 -q info vector
end
document _heap_state
What gdb knows of process, core and registers, for heapinspect to read.
end

# _heap_pipe ARGUMENT...: run heapinspect with the arguments on what gdb holds. A user-defined command
# can't pass on "all my arguments", hence one line for each number of them.
define _heap_pipe
    if $_isvoid($heap_scripts)
        printf "heap: can't tell where heap.gdb lies; set $heap_scripts = \"its folder\"\n"
    else
        if $_isvoid($heapinspect)
            eval "set $_heap_command = \"sh '%s/heap-pipe' ''\"", $heap_scripts
        else
            eval "set $_heap_command = \"sh '%s/heap-pipe' '%s'\"", $heap_scripts, $heapinspect
        end
        if $argc == 1
            eval "pipe _heap_state | %s $arg0", $_heap_command
        end
        if $argc == 2
            eval "pipe _heap_state | %s $arg0 $arg1", $_heap_command
        end
        if $argc == 3
            eval "pipe _heap_state | %s $arg0 $arg1 $arg2", $_heap_command
        end
        if $argc == 4
            eval "pipe _heap_state | %s $arg0 $arg1 $arg2 $arg3", $_heap_command
        end
        if $argc == 5
            eval "pipe _heap_state | %s $arg0 $arg1 $arg2 $arg3 $arg4", $_heap_command
        end
        if $argc == 6
            eval "pipe _heap_state | %s $arg0 $arg1 $arg2 $arg3 $arg4 $arg5", $_heap_command
        end
        if $argc == 7
            eval "pipe _heap_state | %s $arg0 $arg1 $arg2 $arg3 $arg4 $arg5 $arg6", $_heap_command
        end
        if $argc >= 8
            eval "pipe _heap_state | %s $arg0 $arg1 $arg2 $arg3 $arg4 $arg5 $arg6 $arg7", $_heap_command
        end
    end
end
document _heap_pipe
Run heapinspect with these arguments on what gdb holds.
end

# _heap_address COMMAND EXPRESSION: the expression may have blanks, up to eight words.
define _heap_address
    set $_heap_value = 0
    if $argc == 2
        set $_heap_value = (unsigned long) ($arg1)
    end
    if $argc == 3
        set $_heap_value = (unsigned long) ($arg1 $arg2)
    end
    if $argc == 4
        set $_heap_value = (unsigned long) ($arg1 $arg2 $arg3)
    end
    if $argc == 5
        set $_heap_value = (unsigned long) ($arg1 $arg2 $arg3 $arg4)
    end
    if $argc == 6
        set $_heap_value = (unsigned long) ($arg1 $arg2 $arg3 $arg4 $arg5)
    end
    if $argc == 7
        set $_heap_value = (unsigned long) ($arg1 $arg2 $arg3 $arg4 $arg5 $arg6)
    end
    if $argc == 8
        set $_heap_value = (unsigned long) ($arg1 $arg2 $arg3 $arg4 $arg5 $arg6 $arg7)
    end
    if $argc >= 9
        set $_heap_value = (unsigned long) ($arg1 $arg2 $arg3 $arg4 $arg5 $arg6 $arg7 $arg8)
    end
    eval "_heap_pipe $arg0 0x%lx", $_heap_value
end
document _heap_address
Run a heapinspect command on the value of an expression.
end

define heap
    if $argc == 0
        _heap_pipe summary
    end
    if $argc == 1
        _heap_pipe $arg0
    end
    if $argc == 2
        _heap_pipe $arg0 $arg1
    end
    if $argc == 3
        _heap_pipe $arg0 $arg1 $arg2
    end
    if $argc == 4
        _heap_pipe $arg0 $arg1 $arg2 $arg3
    end
    if $argc == 5
        _heap_pipe $arg0 $arg1 $arg2 $arg3 $arg4
    end
    if $argc == 6
        _heap_pipe $arg0 $arg1 $arg2 $arg3 $arg4 $arg5
    end
    if $argc == 7
        _heap_pipe $arg0 $arg1 $arg2 $arg3 $arg4 $arg5 $arg6
    end
    if $argc >= 8
        _heap_pipe $arg0 $arg1 $arg2 $arg3 $arg4 $arg5 $arg6 $arg7
    end
end
define-prefix heap
document heap
What is in the heap of the process or core that gdb holds (by heapinspect).

heap                     one screen: allocators, totals, fragmentation, largest leaks
heap summary             the same
heap arenas              each arena: bytes from the system, live, free, cached
heap map [ADDRESS]       a picture of the chunks in address order
heap chunks [OPTION]...  every chunk, one a line (--state=live --min-size=1M --limit=20)
heap leaks               blocks that nothing leads to: direct, indirect, possible
heap whatis EXPRESSION   what the value points to: block, size, state, who points there
heap refs EXPRESSION     what points to the block
heap path EXPRESSION     why the block is alive: a chain from a root
heap top                 what the heap is made of
heap verify              check every rule of the heap's format

Registers of all threads count as roots. Options of heapinspect may follow: heap leaks --limit=3
Any other word goes to heapinspect as it is (heap --help).
With Python: functions $heap_size(p), bytes of the block that p points into (0: none), and
$heap_block(p), its start. Without, `heap whatis` takes expressions in C, of up to eight words.
end

define heap whatis
    if $argc == 0
        printf "heap whatis: which address? Usage: heap whatis EXPRESSION\n"
    end
    if $argc == 1
        _heap_address whatis $arg0
    end
    if $argc == 2
        _heap_address whatis $arg0 $arg1
    end
    if $argc == 3
        _heap_address whatis $arg0 $arg1 $arg2
    end
    if $argc == 4
        _heap_address whatis $arg0 $arg1 $arg2 $arg3
    end
    if $argc == 5
        _heap_address whatis $arg0 $arg1 $arg2 $arg3 $arg4
    end
    if $argc == 6
        _heap_address whatis $arg0 $arg1 $arg2 $arg3 $arg4 $arg5
    end
    if $argc == 7
        _heap_address whatis $arg0 $arg1 $arg2 $arg3 $arg4 $arg5 $arg6
    end
    if $argc >= 8
        _heap_address whatis $arg0 $arg1 $arg2 $arg3 $arg4 $arg5 $arg6 $arg7
    end
end
document heap whatis
What the value of an expression points to.
Usage: heap whatis EXPRESSION
end

define heap refs
    if $argc == 0
        printf "heap refs: which address? Usage: heap refs EXPRESSION\n"
    end
    if $argc == 1
        _heap_address refs $arg0
    end
    if $argc == 2
        _heap_address refs $arg0 $arg1
    end
    if $argc == 3
        _heap_address refs $arg0 $arg1 $arg2
    end
    if $argc == 4
        _heap_address refs $arg0 $arg1 $arg2 $arg3
    end
    if $argc == 5
        _heap_address refs $arg0 $arg1 $arg2 $arg3 $arg4
    end
    if $argc == 6
        _heap_address refs $arg0 $arg1 $arg2 $arg3 $arg4 $arg5
    end
    if $argc == 7
        _heap_address refs $arg0 $arg1 $arg2 $arg3 $arg4 $arg5 $arg6
    end
    if $argc >= 8
        _heap_address refs $arg0 $arg1 $arg2 $arg3 $arg4 $arg5 $arg6 $arg7
    end
end
document heap refs
What points to the block that holds the value of an expression.
Usage: heap refs EXPRESSION
end

define heap path
    if $argc == 0
        printf "heap path: which address? Usage: heap path EXPRESSION\n"
    end
    if $argc == 1
        _heap_address path $arg0
    end
    if $argc == 2
        _heap_address path $arg0 $arg1
    end
    if $argc == 3
        _heap_address path $arg0 $arg1 $arg2
    end
    if $argc == 4
        _heap_address path $arg0 $arg1 $arg2 $arg3
    end
    if $argc == 5
        _heap_address path $arg0 $arg1 $arg2 $arg3 $arg4
    end
    if $argc == 6
        _heap_address path $arg0 $arg1 $arg2 $arg3 $arg4 $arg5
    end
    if $argc == 7
        _heap_address path $arg0 $arg1 $arg2 $arg3 $arg4 $arg5 $arg6
    end
    if $argc >= 8
        _heap_address path $arg0 $arg1 $arg2 $arg3 $arg4 $arg5 $arg6 $arg7
    end
end
document heap path
Why a block is alive: a shortest chain from a root to it.
Usage: heap path EXPRESSION
end

# $_streq comes with gdb's own Python functions: without Python it is void.
if $_isvoid($heap_python)
    set $heap_python = !$_isvoid($_streq)
end
if $heap_python
    if !$_isvoid($heap_scripts)
        eval "source %s/heap_commands.py", $heap_scripts
    end
end
