/*
 * Memory for what waits to be sent, in two sizes, so that a rest of a few bytes does not cost 16 KiB nor a large one
 * many chunks. Some free chunks stay with their loop.
 */
#ifndef TRAM_TRANSPORTS_BASE_CHUNKS_H
#define TRAM_TRANSPORTS_BASE_CHUNKS_H

#include "core/loop/loop.h"

struct chunk_cache;
struct transport_state;

#define CHUNK_SMALL 2048u
#define CHUNK_LARGE 16384u

/* At least *size bytes, which becomes what it is; more than CHUNK_LARGE is had as asked for. NULL: out of memory. */
void *tram__chunk_get(tram_loop *loop, size_t *size);

/* `size` as tram__chunk_get() left it. */
void tram__chunk_put(tram_loop *loop, void *memory, size_t size);

/* At the end of the loop: frees those that it kept. */
void tram__chunks_free(tram_loop *loop, struct transport_state *state);

/* As many free chunks are listed as were counted. */
void tram__chunks_validate(const struct chunk_cache *cache);

#endif
