/*
 * Mail for an address that has moved: what waits until it is known where that is now, in order, and what is sent on.
 * All of it is nodes of MAIL_KEPT kinds: a request's and a credit's own, as they came, and for a message one of the
 * loop's own, that of its home, which has the slot there in `reserved`. The node comes back to that loop, and counts
 * for the bound of the slot until its message is received or dropped.
 */
#ifndef TRAM_CORE_ACTORS_KEPT_H
#define TRAM_CORE_ACTORS_KEPT_H

#include "core/actors/message.h"

struct kept {
    struct mail *first, *last;
    uint32_t messages; /* of them, requests included; a credit is none */
};

static inline void kept_append(struct kept *kept, struct mail *mail, bool counts) {
    mail->entry.next = NULL;
    if (kept->first)
        kept->last->entry.next = &mail->entry;
    else
        kept->first = mail;
    kept->last = mail;
    kept->messages += counts;
}

static inline void kept_put_in_front(struct kept *kept, const struct kept *front) {
    if (!front->first)
        return;
    front->last->entry.next = kept->first ? &kept->first->entry : NULL;
    if (!kept->first)
        kept->last = front->last;
    kept->first = front->first;
    kept->messages += front->messages;
}

static inline struct kept kept_take(struct kept *kept) {
    struct kept taken = *kept;
    *kept = (struct kept){0};
    return taken;
}

static inline void mail_address(struct mail *mail, uint32_t slot, uint32_t generation) {
    envelope_of(mail)->slot = slot;
    envelope_of(mail)->generation = generation;
}

/* Whom all of it is for. */
void tram__kept_address(const struct kept *kept, uint32_t slot, uint32_t generation);

/* Runs it on this loop as if it came now. What that runs may do anything. */
void tram__kept_run(tram_loop *loop, const struct kept *kept);

/* Whom it is for has closed. Any thread. */
void tram__kept_discard(const struct kept *kept);

/* The same in a forked child: it is the parent's. */
void tram__kept_forget(const struct kept *kept);

/*
 * A node to be kept of what is delivered, a message or a request, for the address that has this slot at home. A message
 * that was posted is copied; one that was sent on stays in its node. NULL: out of memory. Then it is MESSAGE_KEPT.
 */
struct mail *tram__kept_new(tram_loop *loop, tram_message *message, uint32_t home_slot);

#endif
