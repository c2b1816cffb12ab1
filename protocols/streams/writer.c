/* A stream's writer: the transport's calls, and two things to wait for, less in its queue and its end. */
#include <errno.h>

#include "core/base/invalid.h"
#include "core/loop/report.h"
#include "core/tasks/task.h"
#include "protocols/streams/streams.h"
#include "transports/base/types.h"
#include <tram/transport.h>

/* ---- Waiting ---- */

struct writer_wait {
    struct task_wait wait;
    int status;
};

static const struct wait_kind drain_kind = {.name = "drain"};
static const struct wait_kind close_kind = {.name = "end of a stream"};

static int park(struct list *list, const struct wait_kind *kind, const void *where) {
    struct writer_wait self = {.status = 0};
    wait_init(&self.wait, kind, where);
    list_append(list, &self.wait.link);
    int status = tram__task_park(&self.wait);
    list_remove(&self.wait.link);
    return status ? status : self.status;
}

/* All, in order of arrival. They leave the list when they run. */
static void wake_all(struct list *list, int status) {
    for (struct list *link = list->next; link != list; link = link->next) {
        struct writer_wait *waiter = container_of(link, struct writer_wait, wait.link);
        if (task_wake(&waiter->wait))
            waiter->status = status;
    }
}

void tram__writer_lost(tram_stream_writer *writer, int code) {
    writer->lost = true;
    writer->lost_code = code;
    wake_all(&writer->drainers, code);
    wake_all(&writer->closers, code);
}

void tram__writer_resumed(tram_stream_writer *writer) {
    writer->paused = false;
    wake_all(&writer->drainers, 0);
}

static inline tram_loop *loop_of(const tram_stream_writer *writer) {
    return stream_of_writer(writer)->reader.loop;
}

static int careful_drain(tram_stream_writer *writer, const void *where) {
    const tram_stream_reader *reader = &stream_of_writer(writer)->reader;
    int status = loop_enter(reader->loop, "tram_stream_writer_drain");
    if (status)
        return status;
    if (reader->error.code)
        return tram__reader_tell(reader, reader->error.code);
    bool closing = writer->transport && tram_transport_is_closing(writer->transport);
    if (!closing && !writer->lost && !writer->paused)
        return 0;
    if (!task_running(reader->loop))
        return TRAM_ESTATE;
    /* Who writes and drains in turn gives the loop the chance to end the connection, which he sees then. */
    if (closing) {
        status = tram_yield();
        if (status)
            return status;
    }
    if (writer->lost)
        return -ECONNRESET;
    return writer->paused ? park(&writer->drainers, &drain_kind, where) : 0;
}

int tram_stream_writer_drain(tram_stream_writer *writer) {
    const tram_transport *transport = writer->transport;
    if (likely(transport && !writer->paused && !stream_of_writer(writer)->reader.error.code &&
               !(transport->flags & T_CLOSING) && loop_is_plain(transport->io.loop)))
        return 0;
    return careful_drain(writer, __builtin_return_address(0));
}

int tram_stream_writer_wait_closed(tram_stream_writer *writer) {
    tram_loop *loop = loop_of(writer);
    int status = loop_enter(loop, __func__);
    if (status)
        return status;
    if (!writer->lost && !task_running(loop))
        return TRAM_ESTATE;
    status = writer->lost ? writer->lost_code : park(&writer->closers, &close_kind, __builtin_return_address(0));
    return tram__reader_tell(&stream_of_writer(writer)->reader, status);
}

/* ---- The transport's calls ---- */

/* Something is answered: what is waited for next is a new request. */
static inline tram_transport *answering(tram_stream_writer *writer) {
    stream_of_writer(writer)->reader.in_request = false;
    return writer->transport;
}

int tram_stream_writer_write(tram_stream_writer *writer, const void *data, size_t size) {
    tram_transport *transport = answering(writer);
    return likely(transport != NULL) ? tram_transport_write(transport, data, size) : TRAM_ESTATE;
}

int tram_stream_writer_writelines(tram_stream_writer *writer, const struct iovec *pieces, size_t count) {
    tram_transport *transport = answering(writer);
    return likely(transport != NULL) ? tram_transport_writelines(transport, pieces, count) : TRAM_ESTATE;
}

int tram_stream_writer_write_eof(tram_stream_writer *writer) {
    return writer->transport ? tram_transport_write_eof(writer->transport) : TRAM_ESTATE;
}

bool tram_stream_writer_can_write_eof(const tram_stream_writer *writer) {
    return writer->transport && tram_transport_can_write_eof(writer->transport);
}

const void *tram_stream_writer_get_extra_info(tram_stream_writer *writer, const char *name, const void *fallback) {
    return writer->transport ? tram_transport_get_extra_info(writer->transport, name, fallback) : fallback;
}

int tram_stream_writer_close(tram_stream_writer *writer) {
    return writer->transport ? tram_transport_close(writer->transport) : TRAM_ESTATE;
}

bool tram_stream_writer_is_closing(const tram_stream_writer *writer) {
    return writer->lost || (writer->transport && tram_transport_is_closing(writer->transport));
}

tram_stream_reader *tram_stream_writer_reader(tram_stream_writer *writer) {
    return &stream_of_writer(writer)->reader;
}

tram_transport *tram_stream_writer_transport(const tram_stream_writer *writer) {
    return writer->transport;
}
