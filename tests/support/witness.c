#include "witness.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum stage {
    FRESH,
    MADE,
    LOST,
    RELEASED,
};

struct witness {
    tram_protocol base;
    struct witness_tally *tally;
    enum stage stage;
    bool client;
    bool eof;
    bool paused;
    size_t received;
    char buffer[2048];
};

static struct witness *of(tram_protocol *protocol) {
    return (struct witness *)protocol;
}

static void expect(struct witness *witness, bool right) {
    if (!right)
        atomic_fetch_add(&witness->tally->wrong, 1);
}

static void set_up_socket(struct witness *witness, tram_transport *transport) {
    const struct witness_tally *tally = witness->tally;
    struct linger linger = {.l_onoff = 1};
    int size = (int)tally->send_buffer;
    const tram_socket *socket = tram_transport_get_extra_info(transport, "socket", NULL);
    if (!socket) /* for want of memory */
        return;
    if (size)
        setsockopt(socket->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    if (witness->client && tally->end == WITNESS_RESETS)
        setsockopt(socket->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

/* In every way that there is to write. */
static void send_all(tram_transport *transport, size_t size) {
    static const char bytes[1024];
    for (unsigned way = 0; size; way++) {
        size_t part = size < sizeof bytes ? size : sizeof bytes;
        struct iovec pieces[2] = {{(void *)(uintptr_t)bytes, part / 2}, {(void *)(uintptr_t)bytes, part - part / 2}};
        if (way % 4 == 0)
            tram_transport_write(transport, bytes, part);
        else if (way % 4 == 1)
            tram_transport_writelines(transport, pieces, 2);
        if (way % 4 > 1) {
            tram_transport_cork(transport);
            tram_transport_write(transport, bytes, part);
            tram_transport_uncork(transport);
        }
        size -= part;
    }
}

static int connection_made(tram_protocol *protocol, tram_transport *transport) {
    struct witness *witness = of(protocol);
    struct witness_tally *tally = witness->tally;
    expect(witness, witness->stage == FRESH);
    witness->stage = MADE;
    atomic_fetch_add(&tally->made, 1);
    set_up_socket(witness, transport);
    if (!witness->client)
        return 0;
    tally->client = transport;
    send_all(transport, tally->size);
    if (tally->end == WITNESS_HALF_CLOSES)
        tram_transport_write_eof(transport);
    return 0;
}

static void echo_is_here(struct witness *witness) {
    atomic_fetch_add(&witness->tally->echoed, 1);
    if (witness->tally->end == WITNESS_CLOSES || witness->tally->end == WITNESS_RESETS)
        tram_transport_close(witness->base.transport);
    else if (witness->tally->end == WITNESS_ABORTS)
        tram_transport_abort(witness->base.transport);
}

static int received(struct witness *witness, const void *data, size_t size) {
    expect(witness, witness->stage == MADE && !witness->eof && size);
    witness->received += size;
    if (!witness->client)
        return tram_transport_write(witness->base.transport, data, size);
    expect(witness, witness->received <= witness->tally->size);
    if (witness->received == witness->tally->size)
        echo_is_here(witness);
    return 0;
}

static int data_received(tram_protocol *protocol, const void *data, size_t size) {
    return received(of(protocol), data, size);
}

static int get_buffer(tram_protocol *protocol, ptrdiff_t size_hint, void **ret_memory, size_t *ret_size) {
    struct witness *witness = of(protocol);
    (void)size_hint;
    expect(witness, witness->stage == MADE && !witness->eof);
    *ret_memory = witness->buffer;
    *ret_size = sizeof witness->buffer;
    return 0;
}

static int buffer_updated(tram_protocol *protocol, size_t size) {
    struct witness *witness = of(protocol);
    return received(witness, witness->buffer, size);
}

static int eof_received(tram_protocol *protocol) {
    struct witness *witness = of(protocol);
    expect(witness, witness->stage == MADE && !witness->eof);
    witness->eof = true;
    return 0;
}

static int pause_writing(tram_protocol *protocol) {
    struct witness *witness = of(protocol);
    expect(witness, witness->stage == MADE && !witness->paused);
    witness->paused = true;
    return witness->client ? 0 : tram_transport_pause_reading(protocol->transport);
}

static int resume_writing(tram_protocol *protocol) {
    struct witness *witness = of(protocol);
    expect(witness, witness->stage == MADE && witness->paused);
    witness->paused = false;
    return witness->client ? 0 : tram_transport_resume_reading(protocol->transport);
}

static int connection_lost(tram_protocol *protocol, const tram_error *error) {
    struct witness *witness = of(protocol);
    checked_error(error, "connection_lost");
    expect(witness, witness->stage == MADE && (!error || error->code < 0));
    witness->stage = LOST;
    atomic_fetch_add(&witness->tally->lost, 1);
    if (witness->client && witness->tally->client == protocol->transport)
        witness->tally->client = NULL;
    return 0;
}

static void released(tram_protocol *protocol) {
    struct witness *witness = of(protocol);
    expect(witness, witness->stage == FRESH || witness->stage == LOST);
    witness->stage = RELEASED;
    atomic_fetch_add(&witness->tally->released, 1);
    free(witness);
}

static const tram_protocol_ops plain_ops = {
    .connection_made = connection_made,
    .data_received = data_received,
    .eof_received = eof_received,
    .connection_lost = connection_lost,
    .pause_writing = pause_writing,
    .resume_writing = resume_writing,
    .released = released,
};

static const tram_protocol_ops buffered_ops = {
    .connection_made = connection_made,
    .eof_received = eof_received,
    .connection_lost = connection_lost,
    .pause_writing = pause_writing,
    .resume_writing = resume_writing,
    .get_buffer = get_buffer,
    .buffer_updated = buffer_updated,
    .released = released,
};

static int make(struct witness_tally *tally, bool client, tram_protocol **ret_protocol) {
    struct witness *witness = calloc(1, sizeof *witness);
    if (!witness)
        return TRAM_EUSER;
    witness->base.ops = tally->buffered ? &buffered_ops : &plain_ops;
    witness->tally = tally;
    witness->client = client;
    atomic_fetch_add(&tally->protocols, 1);
    *ret_protocol = &witness->base;
    return 0;
}

int witness_server(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    return make(arg, false, ret_protocol);
}

int witness_client(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    return make(arg, true, ret_protocol);
}

bool witness_paired(const struct witness_tally *tally) {
    return !tally->wrong && tally->made == tally->lost && tally->protocols == tally->released;
}
