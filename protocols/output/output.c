/*
 * An output is a chain of the same pieces as a transport's write queue (transports/base/write_queue.h), which joins the
 * queue at the end. Of its last piece the bytes from `begin` to `at` are not in the chain's count yet.
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <tram/output.h>

#include "transports/base/entering.h"
#include "transports/base/transport.h"

#define DECIMAL_MAX 20u /* digits of 2^64 - 1 */
#define VARINT_MAX  10u
#define COPIED_MAX                                                                                                     \
    1024u /* of a shared buffer: to copy it is cheaper than a piece of its own, and one more for what follows */

void tram_output_begin(tram_output *output, tram_transport *transport) {
    *output = (tram_output){.transport = transport};
}

static struct write_queue take_chain(tram_output *output) {
    struct write_queue chain = {.size = output->size, .last = output->last};
    tram__write_queue_filled(&chain, (size_t)(output->at - output->begin));
    return chain;
}

/* With `at` the first byte that is free, of `room`. */
static void put_chain(tram_output *output, const struct write_queue *chain, char *at, size_t room) {
    output->size = chain->size;
    output->last = chain->last;
    output->begin = output->at = at;
    output->end = room ? at + room : at;
}

static void clear_chain(tram_output *output, struct write_queue *chain, int status) {
    tram__write_queue_clear(loop_of(output->transport), chain);
    *output = (tram_output){.transport = output->transport, .status = status};
}

static void failed(tram_output *output, int status) {
    struct write_queue chain = take_chain(output);
    clear_chain(output, &chain, status);
}

__attribute__((noinline)) static char *more_room(tram_output *output, size_t size) {
    if (output->status)
        return NULL;
    struct write_queue chain = take_chain(output);
    size_t room;
    char *at = tram__write_queue_reserve(loop_of(output->transport), &chain, size, &room);
    if (at)
        put_chain(output, &chain, at, room);
    else
        clear_chain(output, &chain, -ENOMEM);
    return at;
}

/* Where the next `size` bytes go, in one piece; NULL: out of memory. */
static inline char *room_for(tram_output *output, size_t size) {
    return likely((size_t)(output->end - output->at) >= size && output->at) ? output->at : more_room(output, size);
}

size_t tram_output_size(const tram_output *output) {
    return output->size + (size_t)(output->at - output->begin);
}

/* ---- The end ---- */

/* By way of the public call, for kinds of transports with their own; they copy what they keep. */
static int send_pieces(tram_transport *transport, struct write_queue *chain) {
    struct iovec pieces[TRAM_WRITE_PIECES];
    int status = 0;
    while (!status && chain->size) {
        size_t count = tram__write_queue_gather(chain, pieces, TRAM_WRITE_PIECES), size = 0;
        for (size_t i = 0; i < count; i++)
            size += pieces[i].iov_len;
        status = tram_transport_writelines(transport, pieces, count);
        tram__write_queue_consume(loop_of(transport), chain, size);
    }
    tram__write_queue_clear(loop_of(transport), chain);
    return status;
}

int tram_output_send(tram_output *output) {
    tram_transport *transport = output->transport;
    int status = enter(transport, __func__);
    if (likely(!status))
        status = output->status;
    if (unlikely(status)) {
        if (status == -ENOMEM)
            tram__transport_fatal(transport, -ENOMEM, "write", NULL);
        tram_output_drop(output);
        return status;
    }
    struct write_queue chain = take_chain(output);
    *output = (tram_output){.transport = transport};
    if (unlikely(transport->flags & T_HAS_OVERRIDES))
        return send_pieces(transport, &chain);
    return tram__transport_write_chain(transport, &chain);
}

void tram_output_drop(tram_output *output) {
    failed(output, 0);
}

/* ---- What is added ---- */

/* More than there is room for: it may lie in several pieces. */
__attribute__((noinline)) static void add_long(tram_output *output, const void *data, size_t size) {
    if (output->status)
        return;
    tram_loop *loop = loop_of(output->transport);
    struct write_queue chain = take_chain(output);
    if (tram__write_queue_copy(loop, &chain, data, size) < 0) {
        clear_chain(output, &chain, -ENOMEM);
        return;
    }
    size_t room;
    char *at = tram__write_queue_room(&chain, &room);
    put_chain(output, &chain, at, room);
}

void tram_output_bytes(tram_output *output, const void *data, size_t size) {
    if (unlikely((size_t)(output->end - output->at) < size)) {
        add_long(output, data, size);
        return;
    }
    if (size)
        memcpy(output->at, data, size);
    output->at += size;
}

void tram_output_text(tram_output *output, const char *text) {
    tram_output_bytes(output, text, strlen(text));
}

void tram_output_byte(tram_output *output, unsigned char byte) {
    char *at = room_for(output, 1);
    if (unlikely(!at))
        return;
    *at = (char)byte;
    output->at++;
}

void tram_output_crlf(tram_output *output) {
    tram_output_bytes(output, "\r\n", 2);
}

void tram_output_decimal(tram_output *output, uint64_t value) {
    char digits[DECIMAL_MAX];
    size_t first = sizeof digits;
    do {
        digits[--first] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    tram_output_bytes(output, digits + first, sizeof digits - first);
}

void tram_output_signed(tram_output *output, int64_t value) {
    if (value < 0)
        tram_output_byte(output, '-');
    tram_output_decimal(output, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

void tram_output_hex(tram_output *output, uint64_t value, unsigned digits) {
    char text[16];
    size_t first = sizeof text, least = digits < sizeof text ? digits : sizeof text;
    do {
        text[--first] = "0123456789abcdef"[value & 15];
        value >>= 4;
    } while (value || sizeof text - first < least);
    tram_output_bytes(output, text + first, sizeof text - first);
}

void tram_output_vprintf(tram_output *output, const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    size_t room = (size_t)(output->end - output->at);
    int size = vsnprintf(output->at, room, format, arguments);
    if (likely(size >= 0) && unlikely((size_t)size >= room)) {
        char *at = room_for(output, (size_t)size + 1); /* vsnprintf ends with a NUL */
        size = at ? vsnprintf(at, (size_t)size + 1, format, again) : 0;
    }
    va_end(again);
    if (likely(size >= 0))
        output->at += size;
    else
        failed(output, -EILSEQ);
}

void tram_output_printf(tram_output *output, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    tram_output_vprintf(output, format, arguments);
    va_end(arguments);
}

void *tram_output_reserve(tram_output *output, size_t size) {
    char *at = room_for(output, size);
    if (likely(at != NULL))
        output->at += size;
    return at;
}

void tram_output_be(tram_output *output, uint64_t value, size_t size) {
    unsigned char *at = size <= sizeof value ? tram_output_reserve(output, size) : NULL;
    for (size_t i = 0; at && i < size; i++)
        at[i] = (unsigned char)(value >> 8 * (size - 1 - i));
}

void tram_output_le(tram_output *output, uint64_t value, size_t size) {
    unsigned char *at = size <= sizeof value ? tram_output_reserve(output, size) : NULL;
    for (size_t i = 0; at && i < size; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

void tram_output_varint(tram_output *output, uint64_t value) {
    unsigned char bytes[VARINT_MAX];
    size_t size = 0;
    for (; value > 0x7f; value >>= 7)
        bytes[size++] = (unsigned char)(value | 0x80);
    bytes[size++] = (unsigned char)value;
    tram_output_bytes(output, bytes, size);
}

void tram_output_buffer(tram_output *output, tram_buffer *buffer) {
    size_t size = tram_buffer_size(buffer);
    if (size <= COPIED_MAX) {
        tram_output_bytes(output, tram_buffer_data(buffer), size);
        return;
    }
    if (output->status)
        return;
    struct write_queue chain = take_chain(output);
    if (!tram__write_queue_refer(loop_of(output->transport), &chain, buffer, 0))
        clear_chain(output, &chain, -ENOMEM);
    else
        put_chain(output, &chain, NULL, 0);
}
