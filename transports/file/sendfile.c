/*
 * sendfile through a transport. It has the writing side to itself: first it waits until what was written before is
 * gone, then the kernel sends from the file as the socket takes it; where the kernel cannot, blocks are read and
 * written, with regard to the water marks.
 */
#include <tram/sendfile.h>

#include <errno.h>

#include "core/base/invalid.h"
#include "transports/base/transport.h"
#include "transports/file/source.h"
#include "transports/socket/socket.h"

enum phase {
    PHASE_FLUSH,  /* bytes written before are queued still */
    PHASE_KERNEL, /* the kernel sends */
    PHASE_READ,   /* a block is being read */
    PHASE_PAUSED, /* the queue is above its high-water mark */
};

struct sendfile {
    tram_future future;
    struct exclusive_writer writer;
    tram_transport *transport;
    struct file_source source;
    enum phase phase;
    bool no_fallback;
    bool told_paused; /* what the protocol knows of the water marks since it is not told any more */
};

static struct sendfile *of(struct exclusive_writer *writer) {
    return container_of(writer, struct sendfile, writer);
}

/* ---- Ending ---- */

/* The transport is the protocol's again. */
static void leave(struct sendfile *sendfile) {
    tram_transport *transport = sendfile->transport;
    bool was_told = sendfile->phase >= PHASE_READ;
    bool told_paused = sendfile->told_paused;
    tram__file_source_close(&sendfile->source);
    if (tram__transport_idle(transport))
        tram__io_send_stop(&transport->io);
    if (was_told) /* the marks go on from what the protocol knows, also if a close goes on within the next call */
        transport->flags = (transport->flags & ~(uint32_t)T_WRITING_PAUSED) | (told_paused ? T_WRITING_PAUSED : 0);
    tram__transport_clear_writer(transport);
    if (!was_told || transport->flags & T_LOST_PENDING)
        return;
    tram__transport_maybe_pause(transport);
    tram__transport_maybe_resume(transport);
}

/* 0: it is done; else the code of what went wrong. */
static void finish(struct sendfile *sendfile, int code) {
    uint64_t sent = sendfile->source.sent;
    /* The future first: the protocol, which leave() may call, finds it done. */
    if (code)
        tram__future_fail_code(&sendfile->future, tram__sendfile_code(code), "sendfile");
    else
        tram__future_finish(&sendfile->future, (void *)(uintptr_t)sent);
    leave(sendfile);
    tram__future_drop(&sendfile->future);
}

static void lost(struct exclusive_writer *writer) {
    struct sendfile *sendfile = of(writer);
    const struct transport_end *end = &sendfile->transport->end;
    int code = end->reason == END_STOP ? 0 : end->code;
    tram__file_source_close(&sendfile->source);
    tram__future_fail_code(&sendfile->future, code ? tram__sendfile_code(code) : -ECONNRESET, "sendfile");
    tram__future_drop(&sendfile->future);
}

static void sendfile_cancel(tram_future *future) {
    struct sendfile *sendfile = (struct sendfile *)future;
    tram__future_finish_cancelled(future);
    leave(sendfile);
    tram__future_drop(future);
}

static const struct future_kind sendfile_kind = {
    .name = "sendfile", .value = FUTURE_VALUE_COUNT, .cancel = sendfile_cancel};

/* ---- From memory ---- */

static int block_read(tram_future *future, void *arg);

static void read_block(struct sendfile *sendfile) {
    sendfile->phase = PHASE_READ;
    int status = tram__file_source_read(&sendfile->source, TRAM_SENDFILE_BLOCK, block_read, sendfile);
    if (status)
        finish(sendfile, status);
}

/* False: the connection was lost, and the sendfile with it. */
static bool write_block(struct sendfile *sendfile, const struct file_block *block) {
    tram__future_hold(&sendfile->future);
    tram__transport_write_alone(sendfile->transport, block->data, block->size);
    bool alive = sendfile->future.state == FUTURE_PENDING; /* a user's half of a carrier may have cancelled it */
    if (alive)
        sendfile->source.sent += block->size;
    tram__future_drop(&sendfile->future);
    return alive;
}

static int block_read(tram_future *future, void *arg) {
    struct sendfile *sendfile = arg;
    void *value = NULL;
    int status = tram_future_result(future, &value);
    const struct file_block *block = value;
    if (status || !block->size) {
        finish(sendfile, status);
    } else if (write_block(sendfile, block)) {
        if (sendfile->source.sent == sendfile->source.count)
            finish(sendfile, 0);
        else if (sendfile->transport->flags & T_WRITING_PAUSED)
            sendfile->phase = PHASE_PAUSED;
        else
            read_block(sendfile);
    }
    return 0;
}

static bool on_watermark(struct exclusive_writer *writer, bool paused) {
    struct sendfile *sendfile = of(writer);
    if (sendfile->phase < PHASE_READ)
        return false;
    if (!paused && sendfile->phase == PHASE_PAUSED)
        read_block(sendfile);
    return true;
}

static void begin_blocks(struct sendfile *sendfile) {
    tram_transport *transport = sendfile->transport;
    transport->io.flags &= (uint8_t)~IO_SENDS_FILE;
    if (sendfile->no_fallback) {
        finish(sendfile, TRAM_ENOSENDFILE);
        return;
    }
    if (write_queue_empty(&transport->queue))
        tram__io_send_stop(&transport->io);
    sendfile->told_paused = transport->flags & T_WRITING_PAUSED;
    read_block(sendfile);
}

/* ---- By the kernel ---- */

static void next_range(struct exclusive_writer *writer, struct io_range *ret_range) {
    *ret_range = tram__file_source_next(&of(writer)->source, TRAM_SENDFILE_SIZE);
}

static void wait_for_room(struct sendfile *sendfile) {
    int status = tram__io_send_start(&sendfile->transport->io);
    if (unlikely(status))
        finish(sendfile, status);
}

static void range_sent(struct exclusive_writer *writer, ssize_t result) {
    struct sendfile *sendfile = of(writer);
    struct file_source *source = &sendfile->source;
    if (unlikely(send_is_starved(result))) {
        tram__transport_send_later(sendfile->transport, (int)result);
        return;
    }
    if (unlikely(result < 0)) {
        if (!source->sent && tram__file_source_refused((int)result))
            begin_blocks(sendfile);
        else if (tram__connection_lost((int)result))
            tram__transport_send_failed(sendfile->transport, (int)result, "sendfile"); /* which tells lost() */
        else
            finish(sendfile, (int)result);
        return;
    }
    source->sent += (uint64_t)result;
    if (!result || tram__file_source_done(source))
        finish(sendfile, 0);
    else
        wait_for_room(sendfile);
}

/* The queue is empty. What it sends at once costs no trip through the poller. */
static void begin(struct sendfile *sendfile, bool at_once) {
    tram_transport *transport = sendfile->transport;
    if (tram_transport_sendfile_mode(transport) != TRAM_SENDFILE_TRY_NATIVE || !sendfile->source.regular) {
        begin_blocks(sendfile);
        return;
    }
    if (tram__file_source_done(&sendfile->source)) {
        finish(sendfile, 0);
        return;
    }
    sendfile->phase = PHASE_KERNEL;
    transport->io.flags |= IO_SENDS_FILE;
    ssize_t result = -EAGAIN;
    if (at_once) {
        struct io_range range;
        next_range(&sendfile->writer, &range);
        result = io_try_send_range(&transport->io, &range);
    }
    if (result == -EAGAIN) {
        wait_for_room(sendfile);
        return;
    }
    if (result > 0)
        tram__transport_count_sent(transport, (size_t)result);
    range_sent(&sendfile->writer, result);
}

static void drained(struct exclusive_writer *writer) {
    struct sendfile *sendfile = of(writer);
    if (sendfile->phase == PHASE_FLUSH)
        begin(sendfile, false);
    else if (sendfile->phase >= PHASE_READ)
        tram__io_send_stop(&sendfile->transport->io);
}

/* ---- Beginning ---- */

static bool may_send(tram_loop *loop, const tram_transport *transport) {
    const uint32_t against = T_CLOSING | T_WRITE_EOF | T_WRITE_FAILED | T_EXCLUSIVE | T_BRIDGED;
    return transport->io.loop == loop && (transport->flags & (T_MADE | against)) == T_MADE &&
           transport_kind_of(transport)->sendfile != SENDFILE_NONE;
}

int tram_loop_sendfile(tram_loop *loop, tram_transport *transport, int file, int64_t offset, int64_t count,
                       const tram_sendfile_options *options, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (options && reserved_used(options))
        return tram__invalid("reserved");
    struct file_source source;
    status = tram__file_source_open(&source, loop, file, offset, count);
    if (status)
        return status;
    if (!may_send(loop, transport))
        return TRAM_ESTATE;
    struct sendfile *sendfile;
    status = tram__future_new(loop, &sendfile_kind, sizeof *sendfile, &sendfile);
    if (status)
        return status;
    sendfile->writer = (struct exclusive_writer){.drained = drained,
                                                 .on_watermark = on_watermark,
                                                 .lost = lost,
                                                 .next_range = next_range,
                                                 .range_sent = range_sent};
    sendfile->transport = transport;
    sendfile->source = source;
    sendfile->no_fallback = options && options->no_fallback;
    if (ret_future)
        *ret_future = tram_future_hold(&sendfile->future);
    tram__future_hold(&sendfile->future);
    tram__transport_set_writer(transport, &sendfile->writer);
    if (sendfile->future.state == FUTURE_PENDING && sendfile->phase == PHASE_FLUSH && tram__transport_idle(transport))
        begin(sendfile, true);
    tram__future_drop(&sendfile->future);
    return 0;
}
