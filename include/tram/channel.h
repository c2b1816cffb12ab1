/*
 * Channels: items from tasks of any loop to tasks of one. Built on the mailboxes of loops; no lock is held, and no
 * thread waits.
 *
 * A channel holds at most its capacity of items, sent and not received yet: a task that sends more waits. Items of one
 * sender arrive in the order of sending. Each item is received once, or given to `discard`.
 */
#ifndef TRAM_CHANNEL_H
#define TRAM_CHANNEL_H

#include <tram/loop.h>

TRAM_BEGIN_DECLS

typedef struct tram_channel tram_channel;

/*
 * A channel whose items are received on `loop`. `capacity`: at least 1. `discard` (may be NULL) gets items that nobody
 * will receive, on any thread. The caller has a reference. Loop's thread. -ENOMEM, TRAM_EVALUE.
 */
TRAM_API int tram_channel_new(tram_loop *loop, size_t capacity, tram_discard discard, tram_channel **ret_channel);

/* One reference more, and one less; releasing NULL does nothing. Who calls anything of a channel has a
 * reference meanwhile. Any thread. */
TRAM_API tram_channel *tram_channel_hold(tram_channel *channel);
TRAM_API void tram_channel_release(tram_channel *channel);

/*
 * Sends an item; where the channel is full, waits until it is not, which needs some memory. From a task of any loop.
 * -ESHUTDOWN: the channel, or its loop, was closed; TRAM_ECANCELLED; -ENOMEM; TRAM_ESTATE: no task runs. With an error
 * the item stays the caller's.
 */
TRAM_API int tram_channel_send(tram_channel *channel, void *item);

/* The same without waiting: -EAGAIN; -ECHILD in a child of fork(). Any thread, task or not. */
TRAM_API int tram_channel_try_send(tram_channel *channel, void *item);

/*
 * Waits for an item. From a task of the channel's loop (TRAM_ESTATE). -ESHUTDOWN: it was closed, and all that had
 * arrived was received; TRAM_ECANCELLED.
 */
TRAM_API int tram_channel_receive(tram_channel *channel, void **ret_item);

/* No more is sent: who waits to send gets -ESHUTDOWN. What has arrived can still be received; what is on its way is
 * discarded. Loop's thread. Happens by itself when the loop closes. */
TRAM_API int tram_channel_close(tram_channel *channel);

TRAM_END_DECLS

#endif
