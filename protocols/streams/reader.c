/*
 * How to read this file: a read takes what is there, or parks its task in wait_for(); what comes is put into the input
 * by tram__reader_feed(), which wakes the task. The public reads follow, and the calls of a reader by itself.
 */
#include "protocols/streams/reader.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "core/base/invalid.h"
#include "core/base/memory.h"
#include "core/loop/raised.h"
#include "core/loop/report.h"
#include "core/tasks/task.h"
#include "protocols/streams/pool.h"
#include <tram/transport.h>

/* ---- Life ---- */

void tram__reader_init(tram_stream_reader *reader, tram_loop *loop, size_t limit) {
    const tram_input_options options = {.limit = limit};
    *reader = (tram_stream_reader){.loop = loop};
    tram_input_init(&reader->input, &options); /* there is nothing wrong with these */
    reader->input.allocator = tram__streams_blocks(loop);
}

static void forget_error(tram_stream_reader *reader) {
    tram_error *error = &reader->error;
    raised_drop(reader->loop, error->user);
    if (error->detail)
        memory_put(&reader->loop->allocator, (char *)(uintptr_t)error->detail, strlen(error->detail) + 1);
    *error = (tram_error){0};
}

void tram__reader_fini(tram_stream_reader *reader) {
    forget_error(reader);
    tram__input_free(&reader->input);
}

/* ---- Reading slower ---- */

static void pause_transport(tram_stream_reader *reader) {
    int status = tram_transport_pause_reading(reader->transport);
    reader->paused = !status;
    if (status == -ENOTSUP)
        reader->transport = NULL; /* no bound (K-23) */
}

static void resume_transport(tram_stream_reader *reader) {
    reader->paused = false;
    if (reader->transport)
        tram_transport_resume_reading(reader->transport);
}

void tram__reader_unbound(tram_stream_reader *reader) {
    if (reader->paused)
        resume_transport(reader);
    reader->transport = NULL;
}

/* ---- Bytes come ---- */

static inline void wake(tram_stream_reader *reader, int status) {
    struct read_wait *waiter = reader->waiter;
    if (waiter && task_wake(&waiter->wait))
        waiter->status = status;
}

static int keep(tram_stream_reader *reader, const void *data, size_t size) {
    tram_input *input = &reader->input;
    input->borrowed = data;
    input->borrowed_size = size;
    int status = tram__input_keep(input);
    if (unlikely(status)) {
        const tram_error error = {.code = status, .operation = "feed_data"};
        tram__reader_fail(reader, &error);
        return status;
    }
    size_t present = tram_input_size(input);
    const struct read_wait *waiter = reader->waiter;
    if (waiter && present < waiter->needed)
        return 0;
    wake(reader, 0);
    if (unlikely(present > 2 * input->limit) && reader->transport && !reader->paused)
        pause_transport(reader);
    return 0;
}

int tram__reader_feed(tram_stream_reader *reader, const void *data, size_t size) {
    return reader_fill(reader, data, size) ? 0 : keep(reader, data, size);
}

void tram__reader_feed_eof(tram_stream_reader *reader) {
    reader->input.flags |= INPUT_EOF;
    wake(reader, 0);
}

void tram__reader_fail(tram_stream_reader *reader, const tram_error *error) {
    size_t size = error->detail ? strlen(error->detail) + 1 : 0;
    char *detail = size ? memory_get(&reader->loop->allocator, size) : NULL;
    if (detail)
        memcpy(detail, error->detail, size);
    raised_claim(reader->loop, error->user);
    forget_error(reader);
    reader->error = *error;
    reader->error.detail = detail;
    reader->error.causes = NULL;
    reader->error.cause_count = 0;
    wake(reader, error->code);
}

int tram__reader_tell(const tram_stream_reader *reader, int status) {
    const tram_error *error = &reader->error;
    if (status && status == error->code)
        tram_loop_raise(reader->loop, status, error->user, error->detail);
    return status;
}

/* ---- No more requests ---- */

static bool is_between_requests(const tram_stream_reader *reader) {
    return !reader->in_request && !tram_input_size(&reader->input);
}

/* What the peer still sends stays in the kernel, so that it is told that nobody took it. */
static void end_requests(tram_stream_reader *reader) {
    if (reader->transport && !reader->paused)
        pause_transport(reader);
    tram__reader_feed_eof(reader);
}

void tram__reader_closing(tram_stream_reader *reader) {
    reader->closing = true;
    if (is_between_requests(reader))
        end_requests(reader);
}

/* ---- Waiting ---- */

static bool at_end(const tram_stream_reader *reader) {
    return reader->input.flags & INPUT_EOF;
}

static void abandon_read(struct task_wait *wait) {
    container_of(wait, struct read_wait, wait)->reader->waiter = NULL;
}

static const struct wait_kind read_kind = {.name = "stream", .abandon = abandon_read};

/*
 * Until what is needed is there, the stream ends or fails, or nothing of that is true: the caller looks again. An error
 * that comes when the task is woken already is seen by the next read (K-18).
 */
static ALWAYS_INLINE int park(tram_stream_reader *reader, struct read_wait *self) {
    reader->waiter = self;
    int status = task_park(&self->wait);
    reader->waiter = NULL;
    if (likely(!status) && unlikely(self->status))
        status = tram__reader_tell(reader, self->status);
    return status;
}

static ALWAYS_INLINE void read_wait_init(struct read_wait *self, tram_stream_reader *reader, size_t needed,
                                         const void *where) {
    wait_init(&self->wait, &read_kind, where);
    self->reader = reader;
    self->needed = needed;
    self->status = 0;
    self->buffer = NULL;
    self->size = self->filled = 0;
}

/* May the running task wait for bytes now? The stream may have ended instead. */
static int before_wait(tram_stream_reader *reader) {
    if (unlikely(reader->error.code))
        return tram__reader_tell(reader, reader->error.code);
    if (unlikely(reader->waiter || !task_running(reader->loop)))
        return TRAM_ESTATE;
    if (unlikely(reader->closing) && is_between_requests(reader))
        end_requests(reader);
    else if (unlikely(reader->paused))
        resume_transport(reader);
    return 0;
}

static int wait_for(tram_stream_reader *reader, size_t needed, const void *where) {
    int status = before_wait(reader);
    if (unlikely(status || at_end(reader)))
        return status;
    struct read_wait self;
    read_wait_init(&self, reader, needed, where);
    return park(reader, &self);
}

/* ---- Before and after each read ---- */

/* Views that were given out end here. */
static inline int end_views(tram_stream_reader *reader) {
    if (unlikely(reader->error.code))
        return tram__reader_tell(reader, reader->error.code);
    if (reader->input.flags & INPUT_VIEWED) {
        reader->input.flags &= ~(uint32_t)INPUT_VIEWED;
        tram__input_tidy(&reader->input);
    }
    return 0;
}

static inline int begin_read(tram_stream_reader *reader, const char *function) {
    int status = loop_enter(reader->loop, function);
    return likely(!status) ? end_views(reader) : status;
}

/* The same for a read that gives a view, which is empty where there is an error; but a wrong thread changes nothing. */
static inline int begin_view(tram_stream_reader *reader, const char *function, tram_bytes *ret_bytes) {
    int status = loop_enter(reader->loop, function);
    if (unlikely(status))
        return status;
    *ret_bytes = (tram_bytes){"", 0};
    return end_views(reader);
}

static const char *first_byte(const tram_stream_reader *reader) {
    return tram__input_piece(&reader->input, reader->input.at).data;
}

static inline void consume(tram_stream_reader *reader, size_t size) {
    tram_input *input = &reader->input;
    input->at += size;
    reader->in_request = true;
    if (input->at == input_end(input))
        tram__input_tidy(input);
    if (unlikely(reader->paused) && tram_input_size(input) <= input->limit)
        resume_transport(reader);
}

/* The first bytes as a view, which keeps them where they are. */
static tram_bytes view(tram_stream_reader *reader, size_t size) {
    if (!size)
        return (tram_bytes){"", 0};
    reader->input.flags |= INPUT_VIEWED;
    return (tram_bytes){first_byte(reader), size};
}

static int take_view(tram_stream_reader *reader, size_t size, tram_bytes *ret_bytes) {
    *ret_bytes = view(reader, size);
    consume(reader, size);
    return 0;
}

static void take_copy(tram_stream_reader *reader, void *buffer, size_t size) {
    if (!size)
        return;
    memcpy(buffer, first_byte(reader), size);
    consume(reader, size);
}

/* 0: that many are there, or the stream has ended. */
static int need(tram_stream_reader *reader, size_t size, const void *where) {
    while (tram_input_size(&reader->input) < size && !at_end(reader)) {
        int status = wait_for(reader, size, where);
        if (unlikely(status))
            return status;
    }
    return 0;
}

/* ---- Somebody else takes over ---- */

tram_bytes tram__reader_rest(tram_stream_reader *reader) {
    size_t size = tram_input_size(&reader->input);
    if (reader->paused)
        resume_transport(reader);
    return size ? (tram_bytes){first_byte(reader), size} : (tram_bytes){NULL, 0};
}

void tram__reader_drop_rest(tram_stream_reader *reader) {
    reader->input.at = input_end(&reader->input);
    tram__input_tidy(&reader->input);
}

/* ---- Reads that copy ---- */

/* A read was cancelled after its buffer was filled (K-17): that comes before what came since. */
static void give_back(tram_stream_reader *reader, const void *data, size_t size) {
    const tram_allocator *allocator = &reader->loop->allocator;
    size_t later = tram_input_size(&reader->input);
    char *copy = later ? memory_get(allocator, later) : NULL;
    if (unlikely(later && !copy)) {
        const tram_error error = {.code = -ENOMEM, .operation = "read"};
        tram__reader_fail(reader, &error);
        return;
    }
    if (later) {
        memcpy(copy, first_byte(reader), later);
        tram__reader_drop_rest(reader);
    }
    if (!keep(reader, data, size) && later)
        (void)keep(reader, copy, later);
    if (later)
        memory_put(allocator, copy, later);
}

/* Nothing is there: how much came straight into the buffer; 0: none, look at the input again. */
static ALWAYS_INLINE ptrdiff_t fill(tram_stream_reader *reader, void *buffer, size_t size, const void *where) {
    struct read_wait self;
    read_wait_init(&self, reader, 1, where);
    self.buffer = buffer;
    self.size = size;
    int status = park(reader, &self);
    if (likely(!status))
        return (ptrdiff_t)self.filled;
    if (self.filled)
        give_back(reader, buffer, self.filled);
    return status;
}

static ptrdiff_t take_or_fill(tram_stream_reader *reader, void *buffer, size_t size, const void *where) {
    while (size && !tram_input_size(&reader->input) && !at_end(reader)) {
        int status = before_wait(reader);
        if (unlikely(status || at_end(reader)))
            return status;
        ptrdiff_t filled = fill(reader, buffer, size, where);
        if (filled)
            return filled;
    }
    size_t present = tram_input_size(&reader->input);
    size = MIN(size, present);
    take_copy(reader, buffer, size);
    return (ptrdiff_t)size;
}

__attribute__((noinline)) static ptrdiff_t careful_read(tram_stream_reader *reader, void *buffer, size_t size,
                                                        const void *where) {
    int status = begin_read(reader, "tram_stream_reader_read");
    if (unlikely(status))
        return status;
    if (unlikely(!buffer && size))
        return tram__invalid("buffer");
    return take_or_fill(reader, buffer, MIN(size, PTRDIFF_MAX), where);
}

/* Nothing is there, and nothing that happened has to be looked at before the running task may wait. */
static inline bool waits_at_once(const tram_stream_reader *reader) {
    const tram_input *input = &reader->input;
    return task_running(reader->loop) && loop_is_plain(reader->loop) && !input->block && !input->flags &&
           !reader->waiter && !reader->error.code && !reader->paused && !reader->closing;
}

/* The hottest call of a stream: who has answered waits for the next request. */
ptrdiff_t tram_stream_reader_read(tram_stream_reader *reader, void *buffer, size_t size) {
    const void *where = __builtin_return_address(0);
    if (unlikely(!waits_at_once(reader) || !buffer || !size || size > PTRDIFF_MAX))
        return careful_read(reader, buffer, size, where);
    ptrdiff_t filled = fill(reader, buffer, size, where);
    return likely(filled) ? filled : take_or_fill(reader, buffer, size, where);
}

int tram_stream_reader_readexactly(tram_stream_reader *reader, void *buffer, size_t size, size_t *ret_partial) {
    size_t taken = 0;
    int status = loop_enter(reader->loop, __func__);
    if (unlikely(status))
        return status;
    status = end_views(reader);
    if (likely(!status) && unlikely(!buffer && size))
        status = tram__invalid("buffer");
    if (likely(!status))
        status = need(reader, size, __builtin_return_address(0));
    if (likely(!status)) {
        size_t present = tram_input_size(&reader->input);
        taken = MIN(present, size);
        take_copy(reader, buffer, taken);
        status = taken < size ? TRAM_EINCOMPLETE : 0;
    }
    if (ret_partial)
        *ret_partial = taken;
    return status;
}

/* ---- Reads that give a view ---- */

/* All, where the stream has ended. */
static int take_rest(tram_stream_reader *reader, tram_bytes *ret_bytes) {
    return take_view(reader, tram_input_size(&reader->input), ret_bytes);
}

int tram_stream_reader_readall(tram_stream_reader *reader, tram_bytes *ret_bytes) {
    int status = begin_view(reader, __func__, ret_bytes);
    if (likely(!status))
        status = need(reader, SIZE_MAX, __builtin_return_address(0));
    return status ? status : take_rest(reader, ret_bytes);
}

/* `size` bytes are known to come before the separator; they stay. */
static int over_limit(tram_stream_reader *reader, size_t size, tram_bytes *ret_bytes) {
    *ret_bytes = view(reader, size);
    return TRAM_ELIMIT;
}

static int read_until(tram_stream_reader *reader, const tram_bytes *separators, size_t count, tram_bytes *ret_bytes,
                      size_t *ret_which, const void *where) {
    tram_input *input = &reader->input;
    size_t longest = tram__input_longest(separators, count), size;
    if (unlikely(!longest))
        return tram__invalid("separators");
    while (!tram__input_find(input, separators, count, longest, &size, ret_which)) {
        if (unlikely(size > input->limit))
            return over_limit(reader, size, ret_bytes);
        if (unlikely(at_end(reader))) {
            take_rest(reader, ret_bytes);
            return TRAM_EINCOMPLETE;
        }
        int status = wait_for(reader, tram_input_size(input) + 1, where);
        if (unlikely(status))
            return status;
    }
    if (unlikely(size > input->limit))
        return over_limit(reader, size, ret_bytes);
    return take_view(reader, size + separators[*ret_which].size, ret_bytes);
}

int tram_stream_reader_readuntil_any(tram_stream_reader *reader, const tram_bytes *separators, size_t count,
                                     tram_bytes *ret_bytes, size_t *ret_which) {
    size_t which;
    int status = begin_view(reader, __func__, ret_bytes);
    if (unlikely(status))
        return status;
    return read_until(reader, separators, count, ret_bytes, ret_which ? ret_which : &which,
                      __builtin_return_address(0));
}

int tram_stream_reader_readuntil(tram_stream_reader *reader, const void *separator, size_t size,
                                 tram_bytes *ret_bytes) {
    const tram_bytes only = {separator, size};
    size_t which;
    int status = begin_view(reader, __func__, ret_bytes);
    if (unlikely(status))
        return status;
    return read_until(reader, &only, 1, ret_bytes, &which, __builtin_return_address(0));
}

/* A line that is longer than the limit goes: all of it if its end is there, else what there is (K-13). */
static int drop_line(tram_stream_reader *reader, size_t known) {
    size_t present = tram_input_size(&reader->input);
    bool ends = known < present && first_byte(reader)[known] == '\n';
    reader->input.flags &= ~(uint32_t)INPUT_VIEWED;
    consume(reader, ends ? known + 1 : present);
    return tram__invalid("limit");
}

int tram_stream_reader_readline(tram_stream_reader *reader, tram_bytes *ret_line) {
    static const tram_bytes newline = {"\n", 1};
    size_t which;
    int status = begin_view(reader, __func__, ret_line);
    if (unlikely(status))
        return status;
    status = read_until(reader, &newline, 1, ret_line, &which, __builtin_return_address(0));
    if (unlikely(status == TRAM_ELIMIT)) {
        status = drop_line(reader, ret_line->size);
        *ret_line = (tram_bytes){"", 0};
    }
    return status == TRAM_EINCOMPLETE ? 0 : status;
}

int tram_stream_reader_peek(tram_stream_reader *reader, size_t least, tram_bytes *ret_bytes) {
    int status = begin_view(reader, __func__, ret_bytes);
    if (likely(!status))
        status = need(reader, least, __builtin_return_address(0));
    if (likely(!status))
        *ret_bytes = view(reader, tram_input_size(&reader->input));
    return status;
}

int tram_stream_reader_consume(tram_stream_reader *reader, size_t size) {
    int status = loop_enter(reader->loop, __func__);
    if (unlikely(status))
        return status;
    if (unlikely(size > tram_input_size(&reader->input)))
        return tram__invalid("size");
    if (size)
        consume(reader, size);
    return 0;
}

bool tram_stream_reader_at_eof(const tram_stream_reader *reader) {
    return tram_input_at_eof(&reader->input) && !(reader->waiter && reader->waiter->filled);
}

const tram_error *tram_stream_reader_exception(const tram_stream_reader *reader) {
    return reader->error.code ? &reader->error : NULL;
}

/* ---- A reader by itself ---- */

int tram_stream_reader_new(tram_loop *loop, size_t limit, tram_stream_reader **ret_reader) {
    int status = loop_enter_open(loop, __func__);
    if (unlikely(status))
        return status;
    if (!tram__streams_loop(loop))
        return -ENOMEM;
    tram_stream_reader *reader = memory_get(&loop->allocator, sizeof *reader);
    if (!reader)
        return -ENOMEM;
    tram__reader_init(reader, loop, limit);
    reader->alone = true;
    *ret_reader = reader;
    return 0;
}

int tram_stream_reader_free(tram_stream_reader *reader) {
    if (!reader)
        return 0;
    int status = loop_enter(reader->loop, __func__);
    if (status)
        return status;
    if (!reader->alone || reader->waiter)
        return TRAM_ESTATE;
    tram__reader_fini(reader);
    memory_put(&reader->loop->allocator, reader, sizeof *reader);
    return 0;
}

int tram_stream_reader_feed_data(tram_stream_reader *reader, const void *data, size_t size) {
    int status = loop_enter(reader->loop, __func__);
    if (unlikely(status))
        return status;
    if (unlikely(at_end(reader)))
        return TRAM_ESTATE;
    if (unlikely(!data && size))
        return tram__invalid("data");
    return size ? tram__reader_feed(reader, data, size) : 0;
}

int tram_stream_reader_feed_eof(tram_stream_reader *reader) {
    int status = loop_enter(reader->loop, __func__);
    if (likely(!status))
        tram__reader_feed_eof(reader);
    return status;
}

int tram_stream_reader_set_exception(tram_stream_reader *reader, const tram_error *error) {
    int status = loop_enter(reader->loop, __func__);
    if (unlikely(status))
        return status;
    if (unlikely(!error || error->code >= 0))
        return tram__invalid("error");
    tram__reader_fail(reader, error);
    return 0;
}
