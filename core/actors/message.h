/* Messages on their way: what a mail node carries, and the end of a message that nobody wants. */
#ifndef TRAM_CORE_ACTORS_MESSAGE_H
#define TRAM_CORE_ACTORS_MESSAGE_H

#include <string.h>

#include "core/loop/loop.h"
#include <tram/message.h>

struct envelope {
    uint32_t slot; /* to whom; of a reply, its status */
    uint32_t generation;
    tram_message message; /* `reserved`: the number of the request that it is */
};

_Static_assert(sizeof(struct envelope) <= MAIL_PAYLOAD, "a message fits a node");

static inline struct envelope *envelope_of(struct mail *mail) {
    return (struct envelope *)(void *)mail->payload;
}

/* `number`: of the request that it is, or 0. */
static inline void envelope_fill(struct mail *mail, tram_address to, const tram_message *message, uint32_t number) {
    struct envelope *envelope = envelope_of(mail);
    envelope->slot = to.slot;
    envelope->generation = to.generation;
    envelope->message = *message;
    envelope->message.reserved = number;
}

/* A request while it is delivered: its node may be on the way back before message_received returns. */
struct delivered {
    tram_message message;
    struct mail *mail; /* NULL: taken */
};

static inline struct mail *take_delivered(tram_message *message) {
    struct delivered *delivered = container_of(message, struct delivered, message);
    struct mail *mail = delivered->mail;
    delivered->mail = NULL;
    return mail;
}

static inline struct mail *mail_of_envelope(struct envelope *envelope) {
    return container_of((unsigned char *)envelope, struct mail, payload[0]);
}

/* After it was received, unless it was taken. */
static inline void message_destroy(tram_message *message) {
    const tram_message_type *type = message->type;
    if (type && type->destroy)
        type->destroy(message);
}

/* It was accepted and cannot be delivered. */
static inline void message_drop(tram_message *message) {
    const tram_message_type *type = message->type;
    if (type && type->dropped)
        type->dropped(message);
    else if (type && type->destroy)
        type->destroy(message);
}

/* A message of which nothing is left to free. */
static inline void message_clear(tram_message *message) {
    message->type = NULL;
    message->words[0] = message->words[1] = 0;
}

/* A message that was posted has come, not a request: its node can be found by it. */
static inline struct mail *mail_of_message(tram_message *message) {
    return mail_of_envelope(container_of(message, struct envelope, message));
}

/* Delivers a message, or drops it, and leaves the node to the caller. False: it was kept. */
bool tram__message_run(tram_loop *loop, struct mail *mail);

/* Does it count for the bound of its address? */
bool tram__message_is_bounded(const struct mail *mail);

/* One that a task has kept is received, or dropped: it counts no more for the bound, if it did. The loop's thread. */
void tram__message_unkept(tram_loop *loop, const struct mail *mail, uint32_t slot);

#endif
