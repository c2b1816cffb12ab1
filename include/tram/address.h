/*
 * Addresses: how any thread reaches one protocol, on whatever loop that lives.
 *
 * An address is a value. Copy it, compare it, send it in a message, keep it for ever: once its protocol has ended it
 * names nobody, and never somebody else. It is of the connection, not of the object: it stays the same through
 * tram_transport_set_protocol(), a change to TLS, and tram_transport_detach() with tram_loop_adopt_detached(), on
 * whatever loop. It names its loop by number, so it may also outlive that.
 *
 * That loop is the one that gave it, its home. Where the connection is on another one now, the home sends on what is
 * posted: one hop, however often the connection has moved, and none once it is back; replies to requests take none.
 * Order, bounds and counts are as if it had never moved. What comes between detach and adopt waits at home. When the
 * home closes, posts are TRAM_ESTATE and what waits there is dropped; the connection goes on, and
 * tram_transport_address() gives it a new address of the loop where it is.
 */
#ifndef TRAM_ADDRESS_H
#define TRAM_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tram/export.h>

TRAM_BEGIN_DECLS

/* All zero names nobody. */
typedef struct tram_address {
    uint32_t loop; /* its number, from 1 on */
    uint32_t loop_generation;
    uint32_t slot;
    uint32_t generation;
} tram_address;

static inline bool tram_address_equal(tram_address a, tram_address b) {
    return a.loop == b.loop && a.loop_generation == b.loop_generation && a.slot == b.slot &&
           a.generation == b.generation;
}

/* For tables that are hashed, and lists that are sorted by address: as memcmp(). */
static inline int tram_address_compare(tram_address a, tram_address b) {
    uint64_t loop_a = (uint64_t)a.loop << 32 | a.loop_generation, loop_b = (uint64_t)b.loop << 32 | b.loop_generation;
    uint64_t slot_a = (uint64_t)a.slot << 32 | a.generation, slot_b = (uint64_t)b.slot << 32 | b.generation;
    if (loop_a != loop_b)
        return loop_a < loop_b ? -1 : 1;
    return slot_a < slot_b ? -1 : slot_a > slot_b;
}

/*
 * The address as text, "2.1/17.3": loop and slot, each with its generation. Made in `text`, where 48 bytes are plenty,
 * and returned. Any thread.
 */
TRAM_API const char *tram_address_text(tram_address address, char *text, size_t size);

TRAM_END_DECLS

#endif
