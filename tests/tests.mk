# Tests: unit programs (TAP in C), end-to-end scripts (TAP), run by one prove.
#
#   make check         unit and end-to-end tests and the static checks
#   make step          the long stepping run: a million instruction boundaries
#   make cfi           the unwind tables of every library of the system beside readelf
UNIT_SOURCES := $(wildcard tests/unit/*.c)
UNIT_TESTS   := $(UNIT_SOURCES:tests/unit/%.c=$(BUILD)/unit/%.t)
# programs under inspection: they know their own truth; built plainly, on no allocator of ours
PROGRAMS        := $(patsubst tests/programs/%.c,$(BUILD)/programs/%,$(wildcard tests/programs/*.c)) \
    $(patsubst tests/programs/%.cc,$(BUILD)/programs/%,$(wildcard tests/programs/*.cc)) \
    $(patsubst tests/programs/modules/%.c,$(BUILD)/programs/%.so,$(wildcard tests/programs/modules/*.c))

$(BUILD)/unit/%.t: tests/unit/%.c tests/unit/tap.h $(INSPECTOR_LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(COMMON) $(INSPECTOR_CFLAGS) -Itests -o $@ $< $(INSPECTOR_LIBRARY) $(INSPECTOR_LIBS)

# the allocator's own: on the shared library, and without gcc's ideas about malloc
$(BUILD)/unit/alloc_%.t: tests/unit/alloc_%.c tests/unit/tap.h $(BUILD)/libhimalloc.so
	@mkdir -p $(@D)
	$(CC) $(COMMON) -fno-builtin -Iallocator -Itests -o $@ $< -L$(BUILD) -lhimalloc \
		-Wl,-rpath,'$$ORIGIN/..' -pthread -ldl -lm

$(BUILD)/programs/%: tests/programs/%.c
	@mkdir -p $(@D)
	$(CC) $(COMMON) -Itests -I. $(PROGRAM_CFLAGS) -o $@ $< -pthread -ldl

# their functions are looked for by name from a library
$(BUILD)/programs/embedded_suppressions $(BUILD)/programs/spoken: PROGRAM_CFLAGS += -rdynamic

# a static, stripped executable at a fixed address
$(BUILD)/programs/heap_truth_static: tests/programs/heap_truth.c tests/programs/heap_truth.h
	@mkdir -p $(@D)
	$(CC) $(COMMON) -Itests -static -no-pie -s -MF $(BUILD)/programs/heap_truth_static.d -o $@ $< -pthread
PROGRAMS += $(BUILD)/programs/heap_truth_static

# jemalloc linked in under a prefix, as Rust programs do, beside glibc's: used, without symbols; and
# there, but never asked
JEMALLOC_ARCHIVE := $(firstword $(wildcard /usr/lib/*/libjemalloc.a /usr/lib64/libjemalloc.a))
MALLOC_NAMES     := malloc calloc realloc free posix_memalign aligned_alloc memalign valloc
JEMALLOC_NAMES   := $(MALLOC_NAMES) malloc_usable_size mallctl mallctlnametomib mallctlbymib \
    malloc_stats_print malloc_message malloc_conf mallocx rallocx xallocx sallocx dallocx sdallocx nallocx
ifneq ($(JEMALLOC_ARCHIVE),)
PROGRAMS += $(addprefix $(BUILD)/programs/heap_truth_rjem,_named _idle) $(BUILD)/programs/heap_truth_rjem
endif

$(BUILD)/programs/librjem.a:
	@mkdir -p $(@D)
	$(OBJCOPY) $(foreach n,$(JEMALLOC_NAMES),--redefine-sym $(n)=_rjem_$(n)) $(JEMALLOC_ARCHIVE) $@

$(BUILD)/programs/heap_truth_rjem_named: tests/programs/heap_truth.c $(BUILD)/programs/librjem.a
	$(CC) $(COMMON) $(foreach n,$(MALLOC_NAMES),-D$(n)=_rjem_$(n)) -Itests \
		-MF $@.d -o $@ $< $(BUILD)/programs/librjem.a -pthread -ldl -lm

$(BUILD)/programs/heap_truth_rjem: $(BUILD)/programs/heap_truth_rjem_named
	$(OBJCOPY) --strip-all $< $@

$(BUILD)/programs/heap_truth_rjem_idle: tests/programs/heap_truth.c $(BUILD)/programs/librjem.a
	$(CC) $(COMMON) -Itests -Wl,-u,_rjem_mallctl -rdynamic -MF $@.d -o $@ $< \
		$(BUILD)/programs/librjem.a -pthread -ldl -lm

$(BUILD)/programs/%: tests/programs/%.cc tests/programs/truth.h
	@mkdir -p $(@D)
	$(CXX) $(CFLAGS) -Wall -Wextra -Wshadow $(if $(WERROR),-Werror) -Itests -o $@ $< -pthread -ldl

# the same, linked with the allocator into one file without symbols and without a dynamic linker
STATIC_PROGRAMS := $(addprefix $(BUILD)/programs/static/truth_,chain freed interior large registers \
    ring signal_stack stack thread_end threads)
$(BUILD)/programs/static/%: tests/programs/%.c tests/programs/truth.h $(BUILD)/libhimalloc.a
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(COMMON)) -Itests -static -s -o $@ $< $(BUILD)/libhimalloc.a -pthread

# libraries that the programs open
$(BUILD)/programs/%.so: tests/programs/modules/%.c
	@mkdir -p $(@D)
	$(CC) $(COMMON) -fPIC -shared -Itests -o $@ $<

# the allocator's capture of stacks, in a library that is preloaded, and in tests of its own
CAPTURE_OBJECTS := $(addprefix $(BUILD)/allocator/,call_stack.o stack_table.o stack_walk.o cfi_rows.o \
    cfi_step.o cfi_program.o eh_frame_section.o pages.o)
$(BUILD)/programs/capture_check.so: tests/programs/modules/capture_check.c tests/programs/capture_compare.h $(CAPTURE_OBJECTS)
	@mkdir -p $(@D)
	$(CC) $(COMMON) $(HIMALLOC_CFLAGS) -shared -I. -Itests -o $@ $< $(CAPTURE_OBJECTS) -Wl,-z,nodelete

$(BUILD)/programs/cfi_compare: tests/programs/cfi_compare.c $(BUILD)/allocator/cfi_program.o
	@mkdir -p $(@D)
	$(CC) $(COMMON) -I. -o $@ $< $(BUILD)/allocator/cfi_program.o

$(BUILD)/unit/alloc_call_stack.t: tests/unit/alloc_call_stack.c tests/programs/capture_compare.h \
    $(CAPTURE_OBJECTS) $(BUILD)/programs/plugin_one.so $(BUILD)/programs/plugin_two.so
	@mkdir -p $(@D)
	$(CC) $(COMMON) -fno-builtin -I. -Itests -o $@ $< $(CAPTURE_OBJECTS) -pthread -ldl

# as with a C library that has no _dl_find_object, and in a static program without .eh_frame_hdr
CAPTURE_VARIANTS := $(BUILD)/unit/alloc_call_stack_phdr.t $(BUILD)/unit/alloc_call_stack_static.t
UNIT_TESTS += $(CAPTURE_VARIANTS)
$(BUILD)/unit/alloc_call_stack_phdr.t: CAPTURE_FLAGS := -DCFI_WITHOUT_FIND_OBJECT
$(BUILD)/unit/alloc_call_stack_static.t: CAPTURE_FLAGS := -static -no-pie -DCAPTURE_STATIC
$(CAPTURE_VARIANTS): $(BUILD)/unit/alloc_call_stack.t
	$(CC) $(filter-out -MMD -MP,$(COMMON)) -fno-builtin -I. -Itests $(CAPTURE_FLAGS) -o $@ \
		tests/unit/alloc_call_stack.c $(CAPTURE_OBJECTS:$(BUILD)/%.o=%.c) -pthread -ldl

.PHONY: test-programs sanitized-tests
sanitized-tests: $(filter-out $(BUILD)/unit/alloc_%,$(UNIT_TESTS))

test-programs: all $(UNIT_TESTS) $(PROGRAMS) $(STATIC_PROGRAMS)

# Many tests stop programs at random instants: each is right at every one, so nothing is run twice.
check: test-programs
	BUILD=$(BUILD) prove --exec '' $(PROVE_FLAGS) $(UNIT_TESTS) \
		$(wildcard tests/e2e/*.t tests/checks/*.t)

# fuzzers: programs that take SECONDS and a SEED, built with sanitizers in a folder of their own
FUZZ_SECONDS ?= 60
SANITIZE     := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FUZZERS      := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/*.c))

$(BUILD)/fuzz/%: tests/fuzz/%.c $(INSPECTOR_LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(COMMON) $(INSPECTOR_CFLAGS) -Itests -o $@ $< $(INSPECTOR_LIBRARY) $(INSPECTOR_LIBS)

# reads the allocator's unwind tables; of the inspector it needs nothing
$(BUILD)/fuzz/cfi_fuzz: tests/fuzz/cfi_fuzz.c allocator/cfi_program.c allocator/cfi_step.c
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(COMMON)) -I. -o $@ tests/fuzz/cfi_fuzz.c allocator/cfi_step.c -ldl

.PHONY: fuzzers
fuzzers: $(FUZZERS)

fuzz:
	@$(MAKE) -s BUILD=$(BUILD)/sanitized CFLAGS='$(SANITIZE)' fuzzers
	@for f in $(notdir $(FUZZERS)); do \
		echo "$$f: $(FUZZ_SECONDS) seconds"; \
		$(BUILD)/sanitized/fuzz/$$f $(FUZZ_SECONDS) || exit 1; done

-include $(wildcard $(BUILD)/fuzz/*.d) $(wildcard $(BUILD)/unit/*.d $(BUILD)/programs/*.d)

# benchmarks: some minutes; more with BENCH_RUNS=5 BENCH_BLOCKS=10000000, other allocators with
# PEERS="NAME=LIBRARY..."
BENCHES := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))
$(BUILD)/bench/%: tests/bench/%.c $(INSPECTOR_LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(COMMON) $(INSPECTOR_CFLAGS) -Itests -o $@ $< $(INSPECTOR_LIBRARY) $(INSPECTOR_LIBS)

$(BUILD)/bench/capture: tests/bench/capture.c $(CAPTURE_OBJECTS)
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(COMMON)) -fomit-frame-pointer -I. -o $@ $< $(CAPTURE_OBJECTS)

$(BUILD)/bench/measure: tests/bench/measure.c
	@mkdir -p $(@D)
	$(CC) $(COMMON) -static -o $@ $<

$(BUILD)/bench/workloads: tests/bench/workloads.c
	@mkdir -p $(@D)
	$(CC) $(COMMON) -o $@ $< -pthread

$(BUILD)/bench/deep_loop: tests/bench/deep_loop.c
	@mkdir -p $(@D)
	$(CC) $(COMMON) -o $@ $<

BENCH_RUNS   ?= 3
BENCH_BLOCKS ?= 2000000
bench: all $(BENCHES) $(BUILD)/names/name_addresses $(BUILD)/programs/large_heap
	@BUILD=$(BUILD) tests/bench/rows $(BENCH_RUNS)
	@BUILD=$(BUILD) tests/bench/allocators $(BENCH_RUNS) 0.5
	@BUILD=$(BUILD) tests/bench/shapes $(BENCH_BLOCKS) $(BENCH_RUNS)
	@BUILD=$(BUILD) tests/bench/verdict $(BENCH_BLOCKS) himalloc ptmalloc
	@BUILD=$(BUILD) tests/bench/leak_peers $(BENCH_BLOCKS) $(BENCH_RUNS)
	@BUILD=$(BUILD) tests/bench/symbolise
	$(BUILD)/bench/capture
	@BUILD=$(BUILD) tests/bench/stacks $(BENCH_RUNS)

# the stepper and the program that it steps: linked at a fixed address, on the static library
STEPPER := $(BUILD)/step/step
VICTIM  := $(BUILD)/step/victim

$(STEPPER): $(filter-out tests/step/victim.c,$(wildcard tests/step/*.c)) $(wildcard tests/step/*.h) $(INSPECTOR_LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(COMMON)) $(INSPECTOR_CFLAGS) -Itests -o $@ $(filter %.c,$^) \
		$(INSPECTOR_LIBRARY) $(INSPECTOR_LIBS)

$(VICTIM): tests/step/victim.c $(BUILD)/libhimalloc.a
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(COMMON)) -I. -no-pie -o $@ $< $(BUILD)/libhimalloc.a -pthread

test-programs: $(STEPPER) $(VICTIM)

# names of addresses of a file, printed as addr2line does: what the tests and the benchmark compare
$(BUILD)/names/%: tests/names/%.c $(INSPECTOR_LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(COMMON)) $(INSPECTOR_CFLAGS) -Itests -o $@ $< \
		$(INSPECTOR_LIBRARY) $(INSPECTOR_LIBS)
test-programs: $(BUILD)/names/name_addresses

step: $(STEPPER) $(VICTIM)
	BUILD=$(BUILD) tests/step/long

.PHONY: cfi
cfi: $(BUILD)/programs/cfi_compare $(BUILD)/libhimalloc.so
	CFI_ALL=1 BUILD=$(BUILD) tests/e2e/cfi_readelf.t

demo: all
	@BUILD=$(BUILD) tests/demo/demo
