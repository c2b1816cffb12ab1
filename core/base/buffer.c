#include "core/base/buffer.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "core/base/memory.h"
#include "core/base/steps.h"

/* A buffer belongs to no loop, so its memory is the default one. */
struct tram_buffer {
    _Atomic size_t references;
    size_t size;
    const void *data; /* the copy behind this struct, or the caller's memory */
    void (*release)(const void *data, size_t size, void *arg);
    void *arg;
    unsigned char copy[];
};

static tram_buffer *buffer_new(size_t room) {
    tram_buffer *buffer = memory_get_with(&tram__memory_default, sizeof *buffer, room);
    if (!buffer)
        return NULL;
    memset(buffer, 0, sizeof *buffer);
    atomic_init(&buffer->references, 1);
    return buffer;
}

tram_buffer *tram_buffer_copy(const void *data, size_t size) {
    tram_buffer *buffer = data || !size ? buffer_new(size) : NULL;
    if (!buffer)
        return NULL;
    if (size)
        memcpy(buffer->copy, data, size);
    buffer->data = buffer->copy;
    buffer->size = size;
    return buffer;
}

tram_buffer *tram_buffer_wrap(const void *data, size_t size, void (*release)(const void *data, size_t size, void *arg),
                              void *arg) {
    tram_buffer *buffer = buffer_new(0);
    if (!buffer)
        return NULL;
    buffer->data = data;
    buffer->size = size;
    buffer->release = release;
    buffer->arg = arg;
    return buffer;
}

void tram__buffer_hold(tram_buffer *buffer, size_t references) {
    between_steps();
    atomic_fetch_add_explicit(&buffer->references, references, memory_order_relaxed);
}

void tram__buffer_release(tram_buffer *buffer, size_t references) {
    between_steps();
    /* Release: our reads come before the free; acquire: the free comes after everybody's. */
    if (atomic_fetch_sub_explicit(&buffer->references, references, memory_order_acq_rel) != references)
        return;
    if (buffer->release)
        buffer->release(buffer->data, buffer->size, buffer->arg);
    size_t room = buffer->data == buffer->copy ? buffer->size : 0;
    memory_put(&tram__memory_default, buffer, sizeof *buffer + room);
}

tram_buffer *tram_buffer_hold(tram_buffer *buffer) {
    tram__buffer_hold(buffer, 1);
    return buffer;
}

void tram_buffer_release(tram_buffer *buffer) {
    if (buffer)
        tram__buffer_release(buffer, 1);
}

const void *tram_buffer_data(const tram_buffer *buffer) {
    return buffer->data;
}

size_t tram_buffer_size(const tram_buffer *buffer) {
    return buffer->size;
}
