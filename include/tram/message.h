/*
 * Messages: what threads send to protocols and actors of other loops.
 *
 * A message has room for two words by value, or for a pointer to more; what is behind a pointer belongs to the message
 * and is destroyed with it. tram_post() takes one from any thread and hands it to `message_received` of the addressee,
 * on the addressee's loop. Messages from one thread to one address arrive in the order in which they were posted. A
 * post that is refused leaves the message to its caller; one that was accepted is received, or dropped by `dropped` of
 * its type: never lost, never given to another.
 *
 *     tram_message message = {.tag = JOIN, .words = {room}};
 *     int status = tram_post(address, &message);
 */
#ifndef TRAM_MESSAGE_H
#define TRAM_MESSAGE_H

#include <tram/address.h>
#include <tram/buffer.h>
#include <tram/future.h>

TRAM_BEGIN_DECLS

typedef struct tram_message tram_message;
typedef struct tram_request tram_request;

/* What sort of message it is, a constant of the program's: receivers tell messages apart by its address, or by tag. */
typedef struct tram_message_type {
    const char *name;
    /* Frees what the message refers to, after message_received has returned without taking it. NULL: nothing. */
    void (*destroy)(tram_message *message);
    /*
     * Called instead, where the message was accepted and can not be delivered: the addressee or its loop has ended; or
     * the addressee has moved on (tram/address.h), and there was no memory to keep the message for it, or a loop closed
     * by which it came. On the loop's thread or, when that is closed, on the closing one or within the post. It frees,
     * too. NULL: `destroy`.
     */
    void (*dropped)(tram_message *message);
    /* One more message of the same content is made, for tram_broadcast(): counts a reference, or replaces what is
     * referred to by a copy. 0 or -ENOMEM. NULL: nothing need be done. */
    int (*copy)(tram_message *message);
    uintptr_t reserved[4]; /* must be 0 */
} tram_message_type;

struct tram_message {
    const tram_message_type *type; /* NULL: by value, with nothing to free */
    uint32_t tag;                  /* the program's own */
    uint32_t reserved;             /* the library's */
    union {
        void *data;
        void *pointers[2];
        uint64_t words[2];
        unsigned char bytes[16];
    };
};

/*
 * Posts a copy of `message`; what it refers to is the message's from then on. Never blocks. TRAM_ESTATE: the loop of
 * the address has ended, or the address is none; -ENOMEM; -ECHILD in a forked child. That the addressee itself has
 * ended shows on its loop only: the message is dropped there. Any thread.
 */
TRAM_API int tram_post(tram_address to, const tram_message *message);

/*
 * The same, within the bound of the addressee: -EAGAIN while as many such messages as tram_address_set_limit() says,
 * 1,024 by default, are on their way to it; TRAM_ESTATE also where the address never was. Any thread.
 */
TRAM_API int tram_try_post(tram_address to, const tram_message *message);

/* After -EAGAIN: a future of `loop`, which is the caller's own, that is done with 0 as soon as it is worth to try
 * again: what this thread had posted before has been received, or dropped. Without -EAGAIN it waits for the same. Its
 * error is TRAM_ESTATE if the loop of the address ends first. To wait in a task: tram_await(). */
TRAM_API int tram_post_credit(tram_loop *loop, tram_address to, tram_future **ret_future);

/* The bound of tram_try_post() for this address, from now on; 0: the default. The thread of its loop, the one that gave
 * it. -ESRCH: it has ended. */
TRAM_API int tram_address_set_limit(tram_loop *loop, tram_address address, uint32_t limit);

/* What has come to one address. */
typedef struct tram_message_counts {
    uint64_t delivered; /* or sent on to the loop where the connection is now */
    uint64_t dropped;   /* nobody received them: its protocol has no message_received */
    uint64_t refused;   /* posts of tram_try_post() that were too many */
    uint32_t waiting;   /* messages of tram_try_post() that are on their way: the length of its queue */
    uint32_t limit;     /* … and how many may be: tram_address_set_limit() */
    /*
     * The time in the queue, from the post until message_received is called, or until a task has received it. It is
     * measured of about one message in 64 that a thread posts, and of one request in 64 or more, but of no two of the
     * same loop at once, so of fewer where they wait for long. waited_ns / measured estimates the mean of all; each
     * single time is exact but for the reading of the clock. Of what is sent on to another loop it is the time until
     * then.
     */
    uint64_t measured;
    uint64_t waited_ns;       /* … of all that were measured, together */
    uint64_t longest_wait_ns; /* … the longest of them */
    uint32_t queued;          /* messages that have come for a task, and that it has not received yet; or for a
                                 connection that was detached, until it is adopted */
    uint32_t reserved_word;   /* 0 */
    uintptr_t reserved[4];
} tram_message_counts;

/* Reads the counts; those of a loop are in tram_loop_stats(). The thread of its loop, the one that gave it;
 * tram_loop_submit() asks from elsewhere. -ESRCH: it has ended, or is of another loop. */
TRAM_API int tram_address_message_counts(tram_loop *loop, tram_address address, tram_message_counts *ret_counts);

/*
 * Posts all of them, in order, or none, with one look at whether the loop sleeps. Any thread.
 */
TRAM_API int tram_post_batch(tram_address to, const tram_message *messages, size_t count);

/*
 * Posts one message to all of these addresses: a copy, made by its type, for each. Returns how many accepted it; those
 * who did not are as if they had not been named. The caller's own message stays the caller's. Any thread.
 */
TRAM_API int tram_broadcast(const tram_address *to, size_t count, const tram_message *message);

/*
 * Makes what the message refers to the receiver's, who frees it: the message, whose copy is returned, is left empty.
 * Within message_received.
 */
TRAM_API tram_message tram_message_take(tram_message *message);

/* The type of messages whose `data` is a tram_buffer, of which each message has one reference. */
TRAM_API extern const tram_message_type tram_buffer_message;

/* ---- Questions and answers ---- */

/*
 * Posts a message that is a request, and gives a future of `loop`, which is the caller's own, for the reply. Its
 * errors: what tram_reply_error() said; -ESRCH: the addressee has ended; TRAM_ESTATE: its loop has; -ENOTSUP: it does
 * not answer; TRAM_ETIMEOUT after `timeout_ns` (TRAM_FOREVER: never; 0: in the next turn). A request whose time is
 * over, or that is cancelled, is still delivered; its reply is dropped. One that was taken waits for its answer, also
 * when the addressee, or its loop, has ended meanwhile: who keeps requests answers them in `stopped` or
 * connection_lost.
 *
 * A request to a loop that sleeps leaves at once. One to a loop that runs may wait for those that follow it, and leave
 * with them: before anything else that this thread posts, and at the latest when this turn of its loop ends. A callback
 * or a task that asks and then computes for long, or blocks, may keep its own request from leaving meanwhile.
 */
TRAM_API int tram_ask(tram_loop *loop, tram_address to, const tram_message *message, uint64_t timeout_ns,
                      tram_future **ret_future);

/* The reply, which is the future's: NULL unless it succeeded; TRAM_ETYPE is NULL too. It may be taken. */
TRAM_API tram_message *tram_future_message(const tram_future *future);

/*
 * Within message_received: the request that the message is, to be answered once, now or later, here or on any thread;
 * NULL: it is none, or was taken. A request that was not taken when message_received returns is answered with -ENOTSUP.
 */
TRAM_API tram_request *tram_message_take_request(tram_message *message);

/*
 * Answers: with a copy of `reply`, as tram_post() (NULL: an empty message), or with a negative code as error. The
 * request is gone after this. Neither can fail: a reply that nobody waits for any more, because of a deadline, a
 * cancellation, or the end of the asking loop, is dropped. Any thread, also after the end of the loop it came to.
 *
 * Within message_received a reply may wait for those to the messages that follow in the same turn of the loop, and
 * leave with them, while the asking loop has not yet taken what it was sent before.
 */
TRAM_API void tram_reply(tram_request *request, const tram_message *reply);
TRAM_API void tram_reply_error(tram_request *request, int code);

/* ---- Work on another loop ---- */

/*
 * A function that runs on another loop. What it stores in *ret_value, NULL at first, is the value of the future; a
 * negative code is its error.
 */
typedef int (*tram_submit_function)(tram_loop *loop, void *arg, void **ret_value);

/*
 * Runs `function(target, arg)` on the thread of `target`, in its place among what this thread posts there; the future
 * is of `loop`, which is the caller's own. If the target closes first, `discard` (may be NULL) is called with `arg` and
 * the error is TRAM_ECANCELLED. `target` must not be freed meanwhile, as with tram_loop_call_soon_threadsafe(). A
 * future that is cancelled, or let go of, does not take the work back. TRAM_ESTATE, -ENOMEM: `arg` stays the caller's.
 */
TRAM_API int tram_loop_submit(tram_loop *loop, tram_loop *target, tram_submit_function function, void *arg,
                              tram_discard discard, tram_future **ret_future);

TRAM_END_DECLS

#endif
