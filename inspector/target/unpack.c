/*
 * Unpacking a compressed core in one pass.
 *
 * The result goes to a file without a name (O_TMPFILE in $TMPDIR, /var/tmp or /tmp; where no file
 * system can do that, memory), so that nothing stays behind however we end. Blocks of zeros become
 * holes: a core's untouched pages cost neither disk nor reading later.
 *
 * Bounds. The first block tells whether it is a core at all (check) and how long it should be; we
 * stop there, so that a small file that unpacks to terabytes ends early. Not more is written than
 * the file system has to spare; what is more is refused with the number. A cut or damaged input
 * gives what came before: a dump that was cut off is worth reading.
 *
 * Each decoder is a struct codec: open, one step from a full buffer of input to a buffer of output,
 * close. Concatenated frames, members and streams are all taken.
 */
#include "target/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lz4frame.h>
#include <lzma.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

enum {
    INPUT_BYTES = 256 * 1024,
    OUTPUT_BYTES = 1024 * 1024,
    BLOCK_BYTES = 4096,
    SPARE_BYTES = 64 * 1024 * 1024, /* left free on the file system */
    WINDOW_LOG_MAX = 30,            /* a decoder may take 1 GiB: zstd --long and xz -9 need less */
};

enum step { STEP_MORE, STEP_DAMAGED };

struct buffers {
    const unsigned char *input;
    size_t input_bytes;
    unsigned char *output;
    size_t output_bytes; /* room, then what is left of it */
    bool is_last;        /* no more input will come */
    bool between;        /* set by the codec: at a frame's end, where input may end */
};

struct codec {
    void *(*open)(void);
    enum step (*step)(void *state, struct buffers *buffers);
    void (*close)(void *state);
};

/* At a frame's end with nothing more to take: another call would begin a frame that is not there.
 */
static bool is_idle(const struct buffers *buffers)
{
    return buffers->between && !buffers->input_bytes;
}

/* ---- zstd ---- */

static void *zstd_open(void)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    if (context)
        ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    return context;
}

static enum step zstd_step(void *state, struct buffers *buffers)
{
    if (is_idle(buffers))
        return STEP_MORE;
    ZSTD_inBuffer input = {buffers->input, buffers->input_bytes, 0};
    ZSTD_outBuffer output = {buffers->output, buffers->output_bytes, 0};
    size_t result = ZSTD_decompressStream(state, &output, &input);
    buffers->input += input.pos;
    buffers->input_bytes -= input.pos;
    buffers->output += output.pos;
    buffers->output_bytes -= output.pos;
    buffers->between = result == 0;
    return ZSTD_isError(result) ? STEP_DAMAGED : STEP_MORE;
}

static void zstd_close(void *state)
{
    ZSTD_freeDCtx(state);
}

/* ---- lz4 ---- */

static void *lz4_open(void)
{
    LZ4F_dctx *context = NULL;
    return LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION)) ? NULL : context;
}

static enum step lz4_step(void *state, struct buffers *buffers)
{
    if (is_idle(buffers))
        return STEP_MORE;
    size_t used = buffers->input_bytes, made = buffers->output_bytes;
    size_t result = LZ4F_decompress(state, buffers->output, &made, buffers->input, &used, NULL);
    if (LZ4F_isError(result))
        return STEP_DAMAGED;
    buffers->input += used;
    buffers->input_bytes -= used;
    buffers->output += made;
    buffers->output_bytes -= made;
    buffers->between = result == 0;
    return STEP_MORE;
}

static void lz4_close(void *state)
{
    LZ4F_freeDecompressionContext(state);
}

/* ---- xz ---- */

static void *xz_open(void)
{
    lzma_stream *stream = calloc(1, sizeof *stream);
    if (stream &&
        lzma_stream_decoder(stream, 1ULL << WINDOW_LOG_MAX, LZMA_CONCATENATED) != LZMA_OK) {
        free(stream);
        return NULL;
    }
    return stream;
}

static enum step xz_step(void *state, struct buffers *buffers)
{
    lzma_stream *stream = state;
    stream->next_in = buffers->input;
    stream->avail_in = buffers->input_bytes;
    stream->next_out = buffers->output;
    stream->avail_out = buffers->output_bytes;
    lzma_ret result = lzma_code(stream, buffers->is_last ? LZMA_FINISH : LZMA_RUN);
    buffers->input = stream->next_in;
    buffers->input_bytes = stream->avail_in;
    buffers->output = stream->next_out;
    buffers->output_bytes = stream->avail_out;
    buffers->between = result == LZMA_STREAM_END;
    /* LZMA_BUF_ERROR: nothing could be done with this input, more may help */
    return result == LZMA_OK || result == LZMA_STREAM_END || result == LZMA_BUF_ERROR
               ? STEP_MORE
               : STEP_DAMAGED;
}

static void xz_close(void *state)
{
    lzma_end(state);
    free(state);
}

/* ---- gzip ---- */

static void *gzip_open(void)
{
    z_stream *stream = calloc(1, sizeof *stream);
    if (stream && inflateInit2(stream, 15 + 16) != Z_OK) {
        free(stream);
        return NULL;
    }
    return stream;
}

static enum step gzip_step(void *state, struct buffers *buffers)
{
    if (is_idle(buffers))
        return STEP_MORE;
    z_stream *stream = state;
    stream->next_in = (unsigned char *)(uintptr_t)buffers->input;
    stream->avail_in = (unsigned)buffers->input_bytes;
    stream->next_out = buffers->output;
    stream->avail_out = (unsigned)buffers->output_bytes;
    int result = inflate(stream, Z_NO_FLUSH);
    buffers->input = stream->next_in;
    buffers->input_bytes = stream->avail_in;
    buffers->output = stream->next_out;
    buffers->output_bytes = stream->avail_out;
    buffers->between = result == Z_STREAM_END;
    if (result == Z_STREAM_END)
        return inflateReset(stream) == Z_OK ? STEP_MORE : STEP_DAMAGED;
    return result == Z_OK || result == Z_BUF_ERROR ? STEP_MORE : STEP_DAMAGED;
}

static void gzip_close(void *state)
{
    inflateEnd(state);
    free(state);
}

/* ---- none ---- */

static void *copy_open(void)
{
    return malloc(1);
}

static enum step copy_step(void *state, struct buffers *buffers)
{
    (void)state;
    size_t count =
        buffers->input_bytes < buffers->output_bytes ? buffers->input_bytes : buffers->output_bytes;
    memcpy(buffers->output, buffers->input, count);
    buffers->input += count;
    buffers->input_bytes -= count;
    buffers->output += count;
    buffers->output_bytes -= count;
    buffers->between = true;
    return STEP_MORE;
}

static const struct codec codecs[] = {
    [PACKING_NONE] = {copy_open, copy_step, free},
    [PACKING_ZSTD] = {zstd_open, zstd_step, zstd_close},
    [PACKING_LZ4] = {lz4_open, lz4_step, lz4_close},
    [PACKING_XZ] = {xz_open, xz_step, xz_close},
    [PACKING_GZIP] = {gzip_open, gzip_step, gzip_close},
};

const char *packing_name(enum packing packing)
{
    static const char *const names[] = {"none", "zstd", "lz4", "xz", "gzip"};
    return names[packing];
}

enum packing packing_detect(const void *bytes, size_t count)
{
    static const struct {
        const char *magic;
        size_t length;
        enum packing packing;
    } magics[] = {
        {"\x28\xb5\x2f\xfd", 4, PACKING_ZSTD},
        {"\x04\x22\x4d\x18", 4, PACKING_LZ4},
        {"\xfd"
         "7zXZ\0",
         6, PACKING_XZ},
        {"\x1f\x8b\x08", 3, PACKING_GZIP},
    };
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++)
        if (count >= magics[i].length && memcmp(bytes, magics[i].magic, magics[i].length) == 0)
            return magics[i].packing;
    return PACKING_NONE;
}

/* ---- the file without a name ---- */

struct sink {
    int fd;
    uint64_t bytes;   /* length so far, holes included */
    uint64_t written; /* on disk */
    uint64_t spare;   /* what may be written */
    const char *place;
};

static int open_nameless(const char *directory)
{
    return directory ? open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) : -1;
}

static uint64_t spare_on_disk(int fd)
{
    struct statvfs system;
    if (fstatvfs(fd, &system) != 0)
        return UINT64_MAX;
    uint64_t spare = (uint64_t)system.f_bavail * system.f_frsize;
    return spare > SPARE_BYTES ? spare - SPARE_BYTES : 0;
}

static enum hi_code open_sink(struct sink *sink, struct hi_err *err)
{
    const char *const places[] = {getenv("TMPDIR"), "/var/tmp", "/tmp"};
    *sink = (struct sink){.fd = -1};
    for (size_t i = 0; i < sizeof places / sizeof *places && sink->fd < 0; i++) {
        sink->place = places[i];
        sink->fd = open_nameless(places[i]);
    }
    if (sink->fd >= 0) {
        sink->spare = spare_on_disk(sink->fd);
        return HI_OK;
    }
    sink->place = "memory";
    sink->fd = memfd_create("unpacked", MFD_CLOEXEC);
    if (sink->fd < 0)
        return hi_fail(err, HI_SYSTEM, "no place to unpack a core: %s", strerror(errno));
    sink->spare = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    return HI_OK;
}

static bool is_zero(const unsigned char *bytes, size_t count)
{
    return count == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0);
}

static enum hi_code no_room(const struct sink *sink, const char *name, struct hi_err *err)
{
    return hi_fail(err, HI_REFUSED,
                   "%s unpacks to more than the %" PRIu64 " MiB that are free in %s; set TMPDIR to "
                   "a place with more room",
                   name, sink->spare >> 20, sink->place);
}

static enum hi_code write_at(struct sink *sink, const unsigned char *bytes, size_t count,
                             const char *name, struct hi_err *err)
{
    sink->written += count;
    if (sink->written > sink->spare)
        return no_room(sink, name, err);
    for (size_t done = 0; done < count;) {
        ssize_t put = pwrite(sink->fd, bytes + done, count - done, (off_t)(sink->bytes + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return errno == ENOSPC || errno == EDQUOT
                       ? no_room(sink, name, err)
                       : hi_fail(err, HI_SYSTEM, "cannot write to %s: %s", sink->place,
                                 strerror(errno));
        done += (size_t)put;
    }
    return HI_OK;
}

/* Whole blocks of zeros are left out. sink->bytes is a multiple of the block but at the end. */
static enum hi_code sink_put(struct sink *sink, const unsigned char *bytes, size_t count,
                             const char *name, struct hi_err *err)
{
    while (count) {
        size_t run = 0;
        bool zero = is_zero(bytes, count < BLOCK_BYTES ? count : BLOCK_BYTES);
        do {
            size_t left = count - run;
            run += left < BLOCK_BYTES ? left : BLOCK_BYTES;
        } while (run < count &&
                 is_zero(bytes + run, count - run < BLOCK_BYTES ? count - run : BLOCK_BYTES) ==
                     zero);
        enum hi_code code = zero ? HI_OK : write_at(sink, bytes, run, name, err);
        if (code != HI_OK)
            return code;
        sink->bytes += run;
        bytes += run;
        count -= run;
    }
    return HI_OK;
}

/* ---- the pump ---- */

struct pump {
    const struct codec *codec;
    void *state;
    int fd;
    const char *name;
    struct sink sink;
    unpack_check check;
    bool checked;
    uint64_t wanted, input_total;
    const struct progress *progress;
    struct unpacked *result;
    unsigned char *input, *output;
    size_t output_filled;
};

static enum hi_code flush(struct pump *pump, struct hi_err *err)
{
    if (!pump->checked && pump->output_filled) {
        pump->checked = true;
        if (!pump->check(pump->output, pump->output_filled, &pump->wanted, err))
            return err ? err->code : HI_BAD_INPUT;
    }
    uint64_t left = pump->wanted - pump->sink.bytes;
    size_t count = pump->output_filled < left ? pump->output_filled : (size_t)left;
    pump->output_filled = 0;
    return sink_put(&pump->sink, pump->output, count, pump->name, err);
}

/* All of one buffer of input. */
static enum hi_code push_input(struct pump *pump, struct buffers *buffers, struct hi_err *err)
{
    for (;;) {
        size_t input_before = buffers->input_bytes, room = OUTPUT_BYTES - pump->output_filled;
        buffers->output = pump->output + pump->output_filled;
        buffers->output_bytes = room;
        enum step step = pump->codec->step(pump->state, buffers);
        pump->output_filled += room - buffers->output_bytes;
        if (step == STEP_DAMAGED) {
            pump->result->is_damaged = true;
            return HI_OK;
        }
        if (pump->output_filled == OUTPUT_BYTES) {
            enum hi_code code = flush(pump, err);
            if (code != HI_OK || pump->sink.bytes >= pump->wanted)
                return code;
            continue;
        }
        /* room left: the codec has given all it had */
        bool stuck = buffers->input_bytes == input_before && buffers->output_bytes == room;
        if (!buffers->input_bytes || stuck)
            return HI_OK;
    }
}

static ssize_t read_input(int fd, void *buffer)
{
    size_t filled = 0;
    while (filled < INPUT_BYTES) {
        ssize_t got = read(fd, (char *)buffer + filled, INPUT_BYTES - filled);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        filled += (size_t)got;
    }
    return (ssize_t)filled;
}

static enum hi_code pump_all(struct pump *pump, struct hi_err *err)
{
    struct buffers buffers = {.between = true};
    enum hi_code code = HI_OK;
    while (code == HI_OK && !buffers.is_last && !pump->result->is_damaged &&
           pump->sink.bytes < pump->wanted) {
        ssize_t got = read_input(pump->fd, pump->input);
        if (got < 0)
            return hi_fail(err, HI_SYSTEM, "cannot read %s: %s", pump->name, strerror(errno));
        buffers.is_last = got < INPUT_BYTES;
        buffers.input = pump->input;
        buffers.input_bytes = (size_t)got;
        pump->result->input_bytes += (uint64_t)got;
        code = push_input(pump, &buffers, err);
        if (code == HI_OK && !progress_step(pump->progress, "unpacking", pump->result->input_bytes,
                                            pump->input_total))
            code = hi_fail(err, HI_STOPPED, "interrupted while unpacking %s", pump->name);
    }
    if (code == HI_OK && pump->sink.bytes < pump->wanted)
        code = flush(pump, err);
    pump->result->is_cut =
        !pump->result->is_damaged && pump->sink.bytes < pump->wanted && !buffers.between;
    return code;
}

static enum hi_code run_pump(struct pump *pump, struct hi_err *err)
{
    struct stat file;
    if (lseek(pump->fd, 0, SEEK_SET) == 0 && fstat(pump->fd, &file) == 0)
        pump->input_total = (uint64_t)file.st_size;
    pump->state = pump->codec->open();
    pump->input = malloc(INPUT_BYTES);
    pump->output = malloc(OUTPUT_BYTES);
    enum hi_code code = HI_OK;
    if (!pump->state || !pump->input || !pump->output)
        code = hi_no_memory(err);
    if (code == HI_OK)
        code = pump_all(pump, err);
    if (pump->state)
        pump->codec->close(pump->state);
    free(pump->input);
    free(pump->output);
    if (code == HI_OK && ftruncate(pump->sink.fd, (off_t)pump->sink.bytes) != 0)
        code = hi_fail(err, HI_SYSTEM, "cannot write to %s: %s", pump->sink.place, strerror(errno));
    return code;
}

enum hi_code unpack_file(int fd, enum packing packing, const char *name, unpack_check check,
                         const struct progress *progress, struct unpacked *result,
                         struct hi_err *err)
{
    *result = (struct unpacked){.fd = -1};
    struct pump pump = {
        .codec = &codecs[packing],
        .fd = fd,
        .name = name,
        .check = check,
        .wanted = UINT64_MAX,
        .progress = progress,
        .result = result,
    };
    enum hi_code code = open_sink(&pump.sink, err);
    if (code != HI_OK)
        return code;
    code = run_pump(&pump, err);
    if (code != HI_OK) {
        close(pump.sink.fd);
        return code;
    }
    result->fd = pump.sink.fd;
    result->bytes = pump.sink.bytes;
    return HI_OK;
}
