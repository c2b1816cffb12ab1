/*
 * The in-memory pair, a custom transport (tram/custom.h) at each end.
 *
 * The ends talk by mail only, so it does not matter whether they share a loop: a mailbox keeps the order of one sender.
 * Four letters go to and fro: bytes, the credit that their receiver gives back once its protocol has taken them, the
 * end of the stream, and the end of the end. What an end may have to say when memory is out has its cell from the
 * beginning: bytes carry the cell of their own credit.
 *
 * The struct link is what the two have in common. It goes with the last end and the last letter.
 */
#include <errno.h>
#include <string.h>

#include "core/loop/loop.h"
#include "transports/base/transport.h"
#include <tram/custom.h>
#include <tram/pair.h>

/* Bytes on their way. */
struct parcel {
    struct parcel *next;
    size_t size;
    size_t taken;        /* by the receiving protocol */
    struct mail *credit; /* a cell of the sender's mailbox */
    char bytes[];
};

struct end {
    tram_transport *transport; /* NULL: not yet, or not any more */
    tram_loop *loop;
    struct mailbox *peer; /* the other end's, held until this one ends */
    struct mail *eof;     /* cells of the other end's mailbox, NULL once they were posted */
    struct mail *gone;
    struct ready deliver;   /* queued by resume_reading */
    struct parcel *parcels; /* came, and not taken yet */
    struct parcel **last;
    unsigned side;        /* which one it is */
    bool came_eof;        /* behind the parcels */
    bool came_gone;       /* nobody is there any more */
    _Atomic bool aborted; /* for the other end to see: what comes from here is dropped */
};

struct link {
    _Atomic unsigned references;
    tram_allocator allocators[2]; /* of the loops: a parcel is its sender's, a cell its mailbox's */
    struct end ends[2];
    tram_protocol_factory factory; /* of the second end, where it is on another loop */
    void *arg;
};

/* What is in a cell. `side` is the end it is for. */
struct letter {
    struct link *link;
    struct parcel *parcel;
    size_t size;
    unsigned side;
};

static void link_hold(struct link *link) {
    atomic_fetch_add_explicit(&link->references, 1, memory_order_relaxed);
}

static void link_drop(struct link *link) {
    if (atomic_fetch_sub_explicit(&link->references, 1, memory_order_acq_rel) != 1)
        return;
    tram_allocator allocator = link->allocators[0];
    memory_put(&allocator, link, sizeof *link);
}

/* ---- Letters ---- */

static struct letter *letter_of(struct mail *mail) {
    _Static_assert(sizeof(struct letter) <= MAIL_PAYLOAD, "a letter fits its cell");
    return (struct letter *)(void *)mail->payload;
}

/* A cell that one of the sender's callbacks took goes back to its mailbox, which waits for it; else it is memory. */
static void cell_free(const tram_allocator *allocator, struct mail *mail) {
    if (mail && mail->home)
        tram__mail_free(mail->home, mail);
    else
        memory_put(allocator, mail, sizeof *mail);
}

static void parcel_free(struct link *link, unsigned sender, struct parcel *parcel) {
    const tram_allocator *allocator = &link->allocators[sender];
    cell_free(allocator, parcel->credit);
    memory_put(allocator, parcel, sizeof *parcel + parcel->size);
}

static void discard_letter(struct mail *mail) {
    struct letter *letter = letter_of(mail);
    if (letter->parcel)
        parcel_free(letter->link, !letter->side, letter->parcel);
    link_drop(letter->link);
}

/* The cell is taken, whether it arrives or not: the end of a closed loop has said, or will say, that it is gone. */
static void post(struct link *link, unsigned to, struct mail *mail, struct letter letter) {
    struct mailbox *mailbox = link->ends[!to].peer;
    link_hold(link);
    letter.link = link;
    letter.side = to;
    *letter_of(mail) = letter;
    if (tram__mailbox_post(mailbox, mail) == 0)
        return;
    discard_letter(mail);
    tram__mail_free(mailbox, mail);
}

/* The protocol of `side` took a parcel, or never will. */
static void give_credit(struct link *link, unsigned side, struct parcel *parcel) {
    struct mail *mail = parcel->credit;
    parcel->credit = NULL;
    if (mail && !link->ends[side].came_gone)
        post(link, !side, mail, (struct letter){.size = parcel->size});
    else
        parcel->credit = mail;
    parcel_free(link, !side, parcel);
}

/* ---- Delivering ---- */

static struct parcel *next_parcel(struct end *end) {
    struct parcel *parcel = end->parcels;
    if (parcel && !(end->parcels = parcel->next))
        end->last = &end->parcels;
    return parcel;
}

static void put_back(struct end *end, struct parcel *parcel) {
    parcel->next = end->parcels;
    if (!parcel->next)
        end->last = &parcel->next;
    end->parcels = parcel;
}

static void drop_parcels(struct link *link, unsigned side) {
    struct parcel *parcel;
    while ((parcel = next_parcel(&link->ends[side])))
        give_credit(link, side, parcel);
}

/* Gives the protocol what has come, as far as it takes it. From the loop. */
static void deliver(struct link *link, unsigned side) {
    struct end *end = &link->ends[side];
    if (atomic_load_explicit(&link->ends[!side].aborted, memory_order_acquire))
        drop_parcels(link, side);
    link_hold(link); /* the transport may end within */
    struct parcel *parcel;
    while (end->transport && (parcel = next_parcel(end))) {
        size_t left = parcel->size - parcel->taken;
        size_t taken = tram_custom_received(end->transport, parcel->bytes + parcel->taken, left);
        parcel->taken += taken;
        if (taken == left || (end->transport && tram_transport_is_closing(end->transport))) {
            give_credit(link, side, parcel);
            continue;
        }
        put_back(end, parcel);
        break;
    }
    if (end->transport && !end->parcels && end->came_eof && tram_custom_eof(end->transport))
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

/* ---- Letters that came ---- */

/* The end that a letter is for, if it is still there. */
static tram_transport *arrived(struct mail *mail, struct letter *ret_letter, struct end **ret_end) {
    *ret_letter = *letter_of(mail);
    *ret_end = &ret_letter->link->ends[ret_letter->side];
    return (*ret_end)->transport;
}

static void run_parcel(tram_loop *loop, struct mail *mail) {
    (void)loop;
    struct letter letter;
    struct end *end;
    tram_transport *transport = arrived(mail, &letter, &end);
    struct parcel *parcel = letter.parcel;
    if (!transport) {
        parcel_free(letter.link, !letter.side, parcel);
    } else if (tram_transport_is_closing(transport)) {
        give_credit(letter.link, letter.side, parcel); /* nobody will read it, and the writer need not wait */
    } else {
        parcel->next = NULL;
        *end->last = parcel;
        end->last = &parcel->next;
        deliver(letter.link, letter.side);
    }
    link_drop(letter.link);
}

static void run_credit(tram_loop *loop, struct mail *mail) {
    (void)loop;
    struct letter letter;
    struct end *end;
    tram_transport *transport = arrived(mail, &letter, &end);
    if (transport)
        tram_custom_sent(transport, letter.size);
    link_drop(letter.link);
}

static void run_eof(tram_loop *loop, struct mail *mail) {
    (void)loop;
    struct letter letter;
    struct end *end;
    if (arrived(mail, &letter, &end)) {
        end->came_eof = true;
        deliver(letter.link, letter.side);
    }
    link_drop(letter.link);
}

/* The other end is no more: what was on its way there is lost, and what came from there ends. */
static void run_gone(tram_loop *loop, struct mail *mail) {
    (void)loop;
    struct letter letter;
    struct end *end;
    tram_transport *transport = arrived(mail, &letter, &end);
    end->came_gone = true;
    if (transport) {
        tram_custom_sent(transport, tram_transport_get_write_buffer_size(transport));
        end->came_eof |= !letter.size; /* not told before */
        deliver(letter.link, letter.side);
    }
    link_drop(letter.link);
}

static const struct mail_kind parcel_kind = {.run = run_parcel, .discard = discard_letter};
static const struct mail_kind credit_kind = {.run = run_credit, .discard = discard_letter};
static const struct mail_kind eof_kind = {.run = run_eof, .discard = discard_letter};
static const struct mail_kind gone_kind = {.run = run_gone, .discard = discard_letter};

/* ---- The table of an end ---- */

static int pair_writelines(tram_transport *transport, void *state, const struct iovec *pieces, size_t count) {
    (void)transport;
    struct end *end = state;
    struct link *link = link_of(end);
    const tram_allocator *allocator = &link->allocators[end->side];
    if (end->came_gone)
        return -EPIPE;
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += pieces[i].iov_len;
    struct mail *mail = tram__mail_new(end->peer, &parcel_kind);
    struct mail *credit = tram__mail_new(end->loop->mailbox, &credit_kind);
    struct parcel *parcel = memory_get(allocator, sizeof *parcel + size);
    if (!mail || !credit || !parcel) {
        if (mail)
            tram__mail_free(end->peer, mail);
        if (credit)
            tram__mail_free(end->loop->mailbox, credit);
        memory_put(allocator, parcel, sizeof *parcel + size);
        return -ENOMEM;
    }
    *parcel = (struct parcel){.size = size, .credit = credit};
    char *to = parcel->bytes;
    for (size_t i = 0; i < count; i++)
        if (pieces[i].iov_len)
            to = mempcpy(to, pieces[i].iov_base, pieces[i].iov_len);
    post(link, !end->side, mail, (struct letter){.parcel = parcel});
    return 0;
}

static int pair_write_eof(tram_transport *transport, void *state) {
    (void)transport;
    struct end *end = state;
    post(link_of(end), !end->side, end->eof, (struct letter){0});
    end->eof = NULL;
    return 0;
}

static int pair_resume_reading(tram_transport *transport, void *state) {
    (void)transport;
    struct end *end = state;
    if ((end->parcels || end->came_eof) && list_empty(&end->deliver.link))
        loop_ready(end->loop, &end->deliver);
    return 0;
}

static int pair_close(tram_transport *transport, void *state) {
    (void)transport;
    struct end *end = state;
    drop_parcels(link_of(end), end->side);
    return 0;
}

/* No credit for what is dropped here: the other end will hear that this one is gone. */
static void pair_abort(tram_transport *transport, void *state) {
    (void)transport;
    struct end *end = state;
    struct parcel *parcel;
    atomic_store_explicit(&end->aborted, true, memory_order_release);
    while ((parcel = next_parcel(end)))
        parcel_free(link_of(end), !end->side, parcel);
}

static void end_leave(struct end *end) {
    struct link *link = link_of(end);
    struct mailbox *peer = end->peer;
    end->transport = NULL;
    list_remove(&end->deliver.link);
    post(link, !end->side, end->gone, (struct letter){.size = !end->eof});
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
};

/* ---- Making one ---- */

static void end_init(struct link *link, unsigned side, tram_loop *loop, tram_loop *other) {
    struct end *end = &link->ends[side];
    end->side = side;
    end->loop = loop;
    end->last = &end->parcels;
    end->deliver.run = deliver_run;
    list_init(&end->deliver.link);
    end->peer = tram__mailbox_hold(other->mailbox);
    end->eof = tram__mail_new(end->peer, &eof_kind);
    end->gone = tram__mail_new(end->peer, &gone_kind);
    link->allocators[side] = loop->allocator;
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
    tram_allocator allocator = link->allocators[0];
    memory_put(&allocator, link, sizeof *link);
}

static struct link *link_new(tram_loop *loop, tram_loop *other) {
    struct link *link = tram__memory_get_zero(&loop->allocator, sizeof *link);
    if (!link)
        return NULL;
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

/* Takes back an end that was begun a moment ago; its protocol stays the caller's. */
static void end_undo(struct end *end) {
    static const tram_protocol_ops no_ops;
    tram_protocol nobody = {.ops = &no_ops};
    end->transport->protocol = &nobody;
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

/* The first letter: the second end comes to life on its loop. */
static void run_begin(tram_loop *loop, struct mail *mail) {
    struct letter letter = *letter_of(mail);
    struct end *end = &letter.link->ends[1];
    tram_protocol *protocol;
    int status = tram__protocol_make(loop, letter.link->factory, letter.link->arg, &protocol);
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
    link_drop(letter.link);
}

static void discard_begin(struct mail *mail) {
    struct letter letter = *letter_of(mail);
    end_leave(&letter.link->ends[1]);
    link_drop(letter.link);
}

static const struct mail_kind begin_kind = {.run = run_begin, .discard = discard_begin};

int tram_loop_create_pair_across(tram_loop *loop, tram_protocol *protocol, tram_loop *other,
                                 tram_protocol_factory factory, void *arg, tram_transport **ret_transport) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!other || !factory)
        return TRAM_EVALUE;
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
    status = end_begin(&link->ends[0], protocol);
    if (status) {
        tram__mail_free(other->mailbox, begin);
        link_undo(link);
        return status;
    }
    tram_transport *transport = link->ends[0].transport;
    link_hold(link);
    *letter_of(begin) = (struct letter){.link = link, .side = 1};
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
