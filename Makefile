# heapinspect and libhimalloc. `make help` lists the targets.
#
#   make               build/heapinspect build/libhimalloc.so build/libhimalloc.a
#   make deps          install what building and testing need (apt, dnf, pacman, apk)
#   make deps demo     build, start real programs, inspect them live and from their cores
#   make deps check    every test
BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= gcc
OBJCOPY ?= objcopy
VERSION := 0.1.0

WARNINGS := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes
CFLAGS   ?= -O2 -g
COMMON   := -std=gnu11 $(CFLAGS) $(WARNINGS) $(if $(WERROR),-Werror) -MMD -MP

-include allocator/flags.mk
ALLOCATOR_SOURCES := $(wildcard allocator/*.c)
# in the first 64 KiB of the library, which the kernel maps at the first touch, what a start and plain
# allocations need; then what samples do; then the rest
of_allocator       = $(filter $(foreach n,$(1),allocator/$(n).c),$(ALLOCATOR_SOURCES))
ALLOCATOR_SAMPLED := $(call of_allocator,call_stack cfi_program cfi_rows stack_table stack_walk)
ALLOCATOR_LATE    := $(call of_allocator,arena_entry cfi_step die eh_frame_section heap_totals leakcheck \
    remark remark_entry stash_age sweep)
ALLOCATOR_EARLY   := $(filter-out $(ALLOCATOR_SAMPLED) $(ALLOCATOR_LATE),$(ALLOCATOR_SOURCES))
ALLOCATOR_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(ALLOCATOR_EARLY) $(ALLOCATOR_SAMPLED) $(ALLOCATOR_LATE))

INSPECTOR_SOURCES := $(wildcard inspector/*.c inspector/*/*.c)
INSPECTOR_OBJECTS := $(INSPECTOR_SOURCES:%.c=$(BUILD)/%.o)
# everything but main.c: what unit tests, the stepper, fuzzers and benchmarks link with
INSPECTOR_LIBRARY := $(BUILD)/libinspector.a
INSPECTOR_CFLAGS  := -Iinspector -I. -pthread -DHEAPINSPECT_VERSION='"$(VERSION)"' \
                     -include inspector/base/banned.h
INSPECTOR_LIBS    := -ldl -ldw -lelf -liberty -lz -lzstd -llzma -llz4 -lm -pthread

.PHONY: all deps demo check step bench fuzz format install clean help
all: $(BUILD)/heapinspect $(BUILD)/libhimalloc.so $(BUILD)/libhimalloc.a

$(BUILD)/allocator/%.o: allocator/%.c
	@mkdir -p $(@D)
	$(CC) $(COMMON) $(HIMALLOC_CFLAGS) -c -o $@ $<

# One object for both libraries: only the exported names are seen outside, and all code lies in one
# section, so that linker symbols say where it starts and ends, also in a static executable. Constants
# are in another one, see sections.ld.
RODATA := .rodata .rodata.str1.1 .rodata.str1.8 .rodata.cst4 .rodata.cst8 .rodata.cst16
$(BUILD)/himalloc.o: $(ALLOCATOR_OBJECTS)
	$(CC) -nostdlib -r -o $@.tmp $^
	$(OBJCOPY) --localize-hidden $(foreach s,.text .text.unlikely .text.startup .text.hot, \
		--rename-section $(s)=himalloc_text) $(foreach s,$(RODATA), \
		--rename-section $(s)=himalloc_tables) $@.tmp $@
	@rm -f $@.tmp

$(BUILD)/libhimalloc.so: $(BUILD)/himalloc.o allocator/exports.map allocator/sections.ld
	$(CC) -shared $(CFLAGS) -Wl,-soname,libhimalloc.so $(HIMALLOC_LDFLAGS) \
		-Wl,--version-script=allocator/exports.map -Wl,-T,allocator/sections.ld \
		-o $@ $(BUILD)/himalloc.o

# a static program keeps its C library's dlclose
$(BUILD)/libhimalloc.a: $(BUILD)/himalloc.o
	@rm -f $@ && mkdir -p $(BUILD)/static
	$(OBJCOPY) --localize-symbol=dlclose $< $(BUILD)/static/himalloc.o
	$(AR) rcs $@ $(BUILD)/static/himalloc.o

$(BUILD)/inspector/%.o: inspector/%.c
	@mkdir -p $(@D)
	$(CC) $(COMMON) $(INSPECTOR_CFLAGS) -c -o $@ $<

$(INSPECTOR_LIBRARY): $(filter-out $(BUILD)/inspector/main.o,$(INSPECTOR_OBJECTS))
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/heapinspect: $(BUILD)/inspector/main.o $(INSPECTOR_LIBRARY)
	$(CC) $(CFLAGS) -o $@ $^ $(INSPECTOR_LIBS)

include tests/tests.mk

deps:
	@tests/checks/install-deps

format:
	clang-format -i $(shell git ls-files '*.c' '*.h')

install: all
	install -D -m 755 $(BUILD)/heapinspect $(DESTDIR)$(PREFIX)/bin/heapinspect
	install -D -m 755 $(BUILD)/libhimalloc.so $(DESTDIR)$(PREFIX)/lib/libhimalloc.so
	install -D -m 644 $(BUILD)/libhimalloc.a $(DESTDIR)$(PREFIX)/lib/libhimalloc.a
	install -D -m 644 allocator/himalloc.h $(DESTDIR)$(PREFIX)/include/himalloc.h
	install -D -m 644 gdb-scripts/heap.gdb $(DESTDIR)$(PREFIX)/share/heapinspect/heap.gdb
	install -D -m 644 gdb-scripts/heap_commands.py \
		$(DESTDIR)$(PREFIX)/share/heapinspect/heap_commands.py
	install -D -m 755 gdb-scripts/heap-pipe $(DESTDIR)$(PREFIX)/share/heapinspect/heap-pipe
	install -D -m 644 docs/heapinspect.1 $(DESTDIR)$(PREFIX)/share/man/man1/heapinspect.1
	install -D -m 644 docs/himalloc.3 $(DESTDIR)$(PREFIX)/share/man/man3/himalloc.3

clean:
	rm -rf $(BUILD)

help:
	@sed -n 's/^#   //p' Makefile

-include $(ALLOCATOR_OBJECTS:.o=.d) $(INSPECTOR_OBJECTS:.o=.d)
