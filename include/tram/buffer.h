/* Bytes that never change and may be written to many connections, on many cores, without a copy. */
#ifndef TRAM_BUFFER_H
#define TRAM_BUFFER_H

#include <stddef.h>

#include <tram/export.h>

TRAM_BEGIN_DECLS

/* Immutable bytes with a count of references. Any thread may hold, release and read one. */
typedef struct tram_buffer tram_buffer;

/* A buffer with its own copy of `size` bytes. One reference, the caller's. NULL: out of memory. */
TRAM_API tram_buffer *tram_buffer_copy(const void *data, size_t size);

/*
 * A buffer over the caller's memory, which must stay as it is until `release(data, size, arg)` is called:
 * once, by whichever thread lets go last. `release` may be NULL for constants. NULL: out of memory, `release`
 * is not called.
 */
TRAM_API tram_buffer *tram_buffer_wrap(const void *data, size_t size,
                                       void (*release)(const void *data, size_t size, void *arg), void *arg);

/* One more reference; returns `buffer`. */
TRAM_API tram_buffer *tram_buffer_hold(tram_buffer *buffer);

/* One reference less; the last one frees. NULL is allowed. */
TRAM_API void tram_buffer_release(tram_buffer *buffer);

TRAM_API const void *tram_buffer_data(const tram_buffer *buffer);
TRAM_API size_t tram_buffer_size(const tram_buffer *buffer);

TRAM_END_DECLS

#endif
