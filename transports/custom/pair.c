/*
 * The in-memory pair, a custom transport (tram/custom.h) at each end.
 *
 * The ends talk by mail only, so it does not matter whether they share a loop: a mailbox keeps the order of one sender.
 * Four messages go to and fro: bytes, the credit that their receiver gives back once its protocol has taken them, the
 * end of the stream, and the end of the end. What an end may have to say when memory is out has its node from the
 * beginning: bytes carry the node of their own credit.
 *
 * The struct link is what the two have in common. It goes with the last end and the last message.
 */
#include <errno.h>
#include <string.h>

#include "core/base/invalid.h"
#include "core/loop/loop.h"
#include "core/system/fault.h"
#include "transports/base/state.h"
#include "transports/base/transport.h"
#include <tram/custom.h>
#include <tram/pair.h>

/* Bytes on their way. */
struct segment {
    struct segment *next;
    size_t size;
    size_t taken;        /* by the receiving protocol */
    struct mail *credit; /* a node of the sender's mailbox */
    char bytes[];
};

struct end {
    tram_transport *transport; /* NULL: not yet, or not any more */
    tram_loop *loop;
    struct mailbox *peer; /* the other end's, held until this one ends */
    struct mail *eof;     /* nodes of the other end's mailbox, NULL once they were posted */
    struct mail *gone;
    struct ready deliver;     /* queued by resume_reading */
    struct segment *segments; /* came, and not taken yet */
    struct segment **last;
    unsigned side;        /* which one it is */
    bool came_eof;        /* behind the segments */
    bool peer_gone;       /* nobody is there any more */
    _Atomic bool aborted; /* for the other end to see: what comes from here is dropped */
};

struct link {
    _Atomic unsigned references;
    tram_allocator allocator; /* of this and of segments: the loop's, but across two loops one that outlives both */
    struct end ends[2];
    tram_protocol_factory factory; /* of the second end, where it is on another loop */
    void *arg;
    tram_discard discard;
};

/* What is in a node. `side` is the end it is for. */
struct pair_message {
    struct link *link;
    struct segment *segment;
    size_t size;
    unsigned side;
};

static void link_hold(struct link *link) {
    atomic_fetch_add_explicit(&link->references, 1, memory_order_relaxed);
}

static void link_drop(struct link *link) {
    if (atomic_fetch_sub_explicit(&link->references, 1, memory_order_acq_rel) != 1)
        return;
    tram_allocator allocator = link->allocator;
    memory_put(&allocator, link, sizeof *link);
}

/* ---- Messages ---- */

static struct pair_message *message_of(struct mail *mail) {
    _Static_assert(sizeof(struct pair_message) <= MAIL_PAYLOAD, "a message fits its node");
    return (struct pair_message *)(void *)mail->payload;
}

static void segment_free(struct link *link, struct segment *segment) {
    if (segment->credit)
        tram__mail_drop(segment->credit);
    memory_put(&link->allocator, segment, sizeof *segment + segment->size);
}

static void discard_message(struct mail *mail) {
    struct pair_message *message = message_of(mail);
    if (message->segment)
        segment_free(message->link, message->segment);
    link_drop(message->link);
}

/* The node is taken, whether it arrives or not: the end of a closed loop has said, or will say, that it is gone. */
static void post(struct link *link, unsigned to, struct mail *mail, struct pair_message message) {
    struct mailbox *mailbox = link->ends[!to].peer;
    link_hold(link);
    message.link = link;
    message.side = to;
    *message_of(mail) = message;
    if (tram__mailbox_post(mailbox, mail) == 0)
        return;
    discard_message(mail);
    tram__mail_free(mailbox, mail);
}

/* The protocol of `side` took a segment, or never will. */
static void give_credit(struct link *link, unsigned side, struct segment *segment) {
    struct mail *mail = segment->credit;
    segment->credit = NULL;
    if (mail && !link->ends[side].peer_gone)
        post(link, !side, mail, (struct pair_message){.size = segment->size});
    else
        segment->credit = mail;
    segment_free(link, segment);
}

/* ---- Delivering ---- */

static struct segment *next_segment(struct end *end) {
    struct segment *segment = end->segments;
    if (segment && !(end->segments = segment->next))
        end->last = &end->segments;
    return segment;
}

static void put_back(struct end *end, struct segment *segment) {
    segment->next = end->segments;
    if (!segment->next)
        end->last = &segment->next;
    end->segments = segment;
}

static void drop_segments(struct link *link, unsigned side) {
    struct segment *segment;
    while ((segment = next_segment(&link->ends[side])))
        give_credit(link, side, segment);
}

/* Gives the protocol what has come, as far as it takes it. From the loop. */
static void deliver(struct link *link, unsigned side) {
    struct end *end = &link->ends[side];
    if (atomic_load_explicit(&link->ends[!side].aborted, memory_order_acquire))
        drop_segments(link, side);
    link_hold(link); /* the transport may end within */
    struct segment *segment;
    while (end->transport && (segment = next_segment(end))) {
        size_t left = segment->size - segment->taken;
        size_t taken = tram_custom_received(end->transport, segment->bytes + segment->taken, left);
        segment->taken += taken;
        /* Of a transport that closes nobody will read it, and the writer need not wait. */
        if (taken == left || (end->transport && tram_transport_is_closing(end->transport))) {
            give_credit(link, side, segment);
            continue;
        }
        put_back(end, segment);
        break;
    }
    if (end->transport && !end->segments && end->came_eof && tram_custom_eof(end->transport))
        end->came_eof = false;
    link_drop(link);
}

static struct link *link_of(struct end *end) {
    return container_of(end - end->side, struct link, ends);
}

static void deliver_run(tram_loop *loop, struct ready *ready) {
    (void)loop;
    struct end *end = container_of(ready, struct end, deliver);
    deliver(link_of(end), end->side);
}

/* ---- Messages that came ---- */

/* The end that a message is for, if it is still there. */
static tram_transport *arrived(struct mail *mail, struct pair_message *ret_message, struct end **ret_end) {
    *ret_message = *message_of(mail);
    *ret_end = &ret_message->link->ends[ret_message->side];
    return (*ret_end)->transport;
}

static void run_segment(tram_loop *loop, struct mail *mail) {
    (void)loop;
    struct pair_message message;
    struct end *end;
    tram_transport *transport = arrived(mail, &message, &end);
    struct segment *segment = message.segment;
    if (!transport) {
        segment_free(message.link, segment);
    } else {
        segment->next = NULL;
        *end->last = segment;
        end->last = &segment->next;
        deliver(message.link, message.side);
    }
    link_drop(message.link);
}

static void run_credit(tram_loop *loop, struct mail *mail) {
    (void)loop;
    struct pair_message message;
    struct end *end;
    tram_transport *transport = arrived(mail, &message, &end);
    if (transport)
        tram_custom_sent(transport, message.size);
    link_drop(message.link);
}

static void run_eof(tram_loop *loop, struct mail *mail) {
    (void)loop;
    struct pair_message message;
    struct end *end;
    if (arrived(mail, &message, &end)) {
        end->came_eof = true;
        deliver(message.link, message.side);
    }
    link_drop(message.link);
}

/* The other end is no more: what was on its way there is lost, and what came from there ends. */
static void run_gone(tram_loop *loop, struct mail *mail) {
    (void)loop;
    struct pair_message message;
    struct end *end;
    tram_transport *transport = arrived(mail, &message, &end);
    end->peer_gone = true;
    if (transport) {
        tram_custom_sent(transport, tram_transport_get_write_buffer_size(transport));
        end->came_eof |= !message.size; /* not told before */
        deliver(message.link, message.side);
    }
    link_drop(message.link);
}

static const struct mail_kind segment_kind = {.run = run_segment, .discard = discard_message};
static const struct mail_kind credit_kind = {.run = run_credit, .discard = discard_message};
static const struct mail_kind eof_kind = {.run = run_eof, .discard = discard_message};
static const struct mail_kind gone_kind = {.run = run_gone, .discard = discard_message};

/* ---- The table of an end ---- */

static int pair_writelines(tram_transport *transport, void *state, const struct iovec *pieces, size_t count) {
    (void)transport;
    struct end *end = state;
    struct link *link = link_of(end);
    const tram_allocator *allocator = &link->allocator;
    if (end->peer_gone)
        return -EPIPE;
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += pieces[i].iov_len;
    struct mail *mail = tram__mail_new(end->peer, &segment_kind);
    struct mail *credit = tram__mail_new(end->loop->mailbox, &credit_kind);
    struct segment *segment = memory_get_with(allocator, sizeof *segment, size);
    if (!mail || !credit || !segment) {
        if (mail)
            tram__mail_free(end->peer, mail);
        if (credit)
            tram__mail_free(end->loop->mailbox, credit);
        if (segment)
            memory_put(allocator, segment, sizeof *segment + size);
        return -ENOMEM;
    }
    *segment = (struct segment){.size = size, .credit = credit};
    char *to = segment->bytes;
    for (size_t i = 0; i < count; i++)
        if (pieces[i].iov_len)
            to = mempcpy(to, pieces[i].iov_base, pieces[i].iov_len);
    post(link, !end->side, mail, (struct pair_message){.segment = segment});
    return 0;
}

static int pair_write_eof(tram_transport *transport, void *state) {
    (void)transport;
    struct end *end = state;
    post(link_of(end), !end->side, end->eof, (struct pair_message){0});
    end->eof = NULL;
    return 0;
}

static int pair_resume_reading(tram_transport *transport, void *state) {
    (void)transport;
    struct end *end = state;
    if ((end->segments || end->came_eof) && list_empty(&end->deliver.link))
        loop_ready(end->loop, &end->deliver);
    return 0;
}

static int pair_close(tram_transport *transport, void *state) {
    (void)transport;
    struct end *end = state;
    drop_segments(link_of(end), end->side);
    return 0;
}

/* No credit for what is dropped here: the other end will hear that this one is gone. */
static void pair_abort(tram_transport *transport, void *state) {
    (void)transport;
    struct end *end = state;
    struct segment *segment;
    atomic_store_explicit(&end->aborted, true, memory_order_release);
    while ((segment = next_segment(end)))
        segment_free(link_of(end), segment);
}

static void end_leave(struct end *end) {
    struct link *link = link_of(end);
    struct mailbox *peer = end->peer;
    end->transport = NULL;
    list_remove(&end->deliver.link);
    post(link, !end->side, end->gone, (struct pair_message){.size = !end->eof});
    if (end->eof)
        tram__mail_free(peer, end->eof);
    end->peer = NULL;
    tram__mailbox_release(peer);
    link_drop(link);
}

static void pair_ended(tram_transport *transport, void *state) {
    struct end *end = state;
    pair_abort(transport, end);
    end_leave(end);
}

static const tram_custom_ops pair_ops = {
    .writelines = pair_writelines,
    .write_eof = pair_write_eof,
    .resume_reading = pair_resume_reading,
    .close = pair_close,
    .abort = pair_abort,
    .ended = pair_ended,
    .start_tls_compatible = true,
};

/* ---- Making one ---- */

static void end_init(struct link *link, unsigned side, tram_loop *loop, tram_loop *other) {
    struct end *end = &link->ends[side];
    end->side = side;
    end->loop = loop;
    end->last = &end->segments;
    end->deliver.run = deliver_run;
    list_init(&end->deliver.link);
    end->peer = tram__mailbox_hold(other->mailbox);
    end->eof = tram__mail_new(end->peer, &eof_kind);
    end->gone = tram__mail_new(end->peer, &gone_kind);
}

/* Before anybody has seen it. */
static void link_undo(struct link *link) {
    for (unsigned side = 0; side < 2; side++) {
        struct end *end = &link->ends[side];
        if (end->eof)
            tram__mail_free(end->peer, end->eof);
        if (end->gone)
            tram__mail_free(end->peer, end->gone);
        tram__mailbox_release(end->peer);
    }
    tram_allocator allocator = link->allocator;
    memory_put(&allocator, link, sizeof *link);
}

static struct link *link_new(tram_loop *loop, tram_loop *other) {
    tram_allocator allocator = loop == other ? loop->allocator : tram__faults_lasting(&loop->allocator);
    struct link *link = tram__memory_get_zero(&allocator, sizeof *link);
    if (!link)
        return NULL;
    link->allocator = allocator;
    atomic_init(&link->references, 2);
    end_init(link, 0, loop, other);
    end_init(link, 1, other, loop);
    const struct end *ends = link->ends;
    if (ends[0].eof && ends[0].gone && ends[1].eof && ends[1].gone)
        return link;
    link_undo(link);
    return NULL;
}

static int end_begin(struct end *end, tram_protocol *protocol) {
    return tram_loop_create_custom(end->loop, &pair_ops, end, protocol, &end->transport);
}

/* Undoes an end that was begun a moment ago; its protocol stays the caller's. */
static void end_undo(struct end *end) {
    end->transport->protocol = NULL;
    tram__transport_withdraw(end->transport);
}

int tram_loop_create_pair(tram_loop *loop, tram_protocol *first, tram_protocol *second, tram_transport **ret_first,
                          tram_transport **ret_second) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!first || !first->ops || !second || !second->ops)
        return TRAM_ETYPE;
    struct link *link = link_new(loop, loop);
    if (!link)
        return -ENOMEM;
    struct end *ends = link->ends;
    status = end_begin(&ends[0], first);
    if (status) {
        link_undo(link);
        return status;
    }
    status = end_begin(&ends[1], second);
    if (status) {
        end_undo(&ends[0]);
        end_leave(&ends[1]);
        return status;
    }
    if (ret_first)
        *ret_first = ends[0].transport;
    if (ret_second)
        *ret_second = ends[1].transport;
    return 0;
}

/* ---- Across two loops ---- */

/* The factory was called, or never will be. */
static void discard_arg(struct link *link) {
    if (link->discard)
        link->discard(link->arg);
}

/* The first message: the second end comes to life on its loop. */
static void run_begin(tram_loop *loop, struct mail *mail) {
    struct pair_message message = *message_of(mail);
    struct end *end = &message.link->ends[1];
    tram_protocol *protocol;
    int status = transport_state_open(loop);
    if (!status)
        status = tram__protocol_make(loop, message.link->factory, message.link->arg, &protocol);
    discard_arg(message.link);
    if (!status) {
        status = end_begin(end, protocol);
        if (status)
            tram__protocol_release_soon(loop, protocol);
    }
    if (status) {
        tram_exception exception = {
            .message = "the other end of a pair could not be made",
            .error = tram__raised(loop, status, "protocol_factory"),
            .fd = -1,
        };
        tram__report(loop, &exception);
        end_leave(end);
    }
    link_drop(message.link);
}

static void discard_begin(struct mail *mail) {
    struct pair_message message = *message_of(mail);
    discard_arg(message.link);
    end_leave(&message.link->ends[1]);
    link_drop(message.link);
}

static const struct mail_kind begin_kind = {.run = run_begin, .discard = discard_begin};

int tram_loop_create_pair_across(tram_loop *loop, tram_protocol *protocol, tram_loop *other,
                                 tram_protocol_factory factory, void *arg, tram_transport **ret_transport) {
    return tram_loop_create_pair_across_with_discard(loop, protocol, other, factory, arg, NULL, ret_transport);
}

int tram_loop_create_pair_across_with_discard(tram_loop *loop, tram_protocol *protocol, tram_loop *other,
                                              tram_protocol_factory factory, void *arg, tram_discard discard,
                                              tram_transport **ret_transport) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!other || !factory)
        return tram__invalid(other ? "factory" : "other");
    if (!protocol || !protocol->ops)
        return TRAM_ETYPE;
    struct mail *begin = tram__mail_new(other->mailbox, &begin_kind);
    if (!begin)
        return -ENOMEM;
    struct link *link = link_new(loop, other);
    if (!link) {
        tram__mail_free(other->mailbox, begin);
        return -ENOMEM;
    }
    link->factory = factory;
    link->arg = arg;
    link->discard = discard;
    status = end_begin(&link->ends[0], protocol);
    if (status) {
        tram__mail_free(other->mailbox, begin);
        link_undo(link);
        return status;
    }
    tram_transport *transport = link->ends[0].transport;
    link_hold(link);
    *message_of(begin) = (struct pair_message){.link = link, .side = 1};
    status = tram__mailbox_post(other->mailbox, begin);
    if (status) {
        tram__mail_free(other->mailbox, begin);
        end_undo(&link->ends[0]);
        end_leave(&link->ends[1]);
        link_drop(link);
        return status;
    }
    if (ret_transport)
        *ret_transport = transport;
    return 0;
}
