#include "core/actors/forwarding.h"

#include <errno.h>

#include "core/actors/kept.h"
#include "core/actors/sample.h"
#include "core/base/steps.h"

#define FORWARDING_SLOT (LOOP_SLOT_CORE + 3)

/* The target of a slot at home that forwards. */
struct forwarding {
    struct list link;
    uint32_t slot;
    uint32_t awaited;   /* places that are to return what had come there */
    struct move *place; /* where the target is; NULL: under way */
    struct kept kept;
};

/*
 * It is freed with its last reference: that of the target, who is under way or has the slot at the place, until that is
 * given back; and those of its mail that is out.
 */
struct move {
    struct mail arrived; /* to the home */
    struct mail left;    /* … LEFT, back as a FENCE, and again as RETURNED; or once, as ENDED */
    _Atomic uint32_t references;
    uint32_t home_slot, home_generation;
    struct addressees *home;       /* held */
    struct forwarding *forwarding; /* for a home that has none yet, until the target leaves it; else NULL */
    /* From the arrival on; the place's own, but that the home reads what is constant, and takes what was kept. */
    struct addressees *where; /* held */
    uint32_t slot, generation;
    deliver_function deliver; /* the target's; NULL: it has left, or ended */
    void *target;
    uint32_t *target_slot;
    struct list link;
    struct kept kept; /* what has come since it has left */
};

/* Of a loop. */
struct forwarding_state {
    struct loop_state state;
    struct close_hook hook;
    tram_loop *loop;
    struct list forwardings; /* of its own addresses */
    struct list moves;       /* to this loop, as long as they have a slot here */
};

static const tram_allocator *const memory = &tram__memory_default;

static struct addressees *here(const tram_loop *loop) {
    return actors_present(loop)->here;
}

/* ---- Slots that deliver to nobody, or to who has come from elsewhere ---- */

static void send_on(const struct move *place, struct mail *mail) {
    mail_address(mail, place->slot, place->generation);
    if (unlikely(tram__mailbox_post(place->where->mailbox, mail)))
        mail->kind->discard(mail);
}

static void forward(struct forwarding *forwarding, struct addressee *addressee, struct mail *mail, bool counts) {
    if (forwarding->place && !forwarding->awaited) {
        addressee->delivered += counts;
        send_on(forwarding->place, mail);
    } else {
        addressee->queued += counts;
        kept_append(&forwarding->kept, mail, counts);
    }
}

static enum delivery deliver_at_home(tram_loop *loop, void *target, tram_message *message) {
    struct forwarding *forwarding = target;
    const struct actors *actors = actors_present(loop);
    struct addressee *addressee = addressee_at(actors->here, forwarding->slot);
    struct mail *mail = tram__kept_new(loop, message, forwarding->slot);
    if (unlikely(!mail))
        return MESSAGE_UNWANTED;
    if (unlikely(actors->sampled_ns))
        sample_end(loop, addressee, actors->sampled_ns);
    forward(forwarding, addressee, mail, true);
    return MESSAGE_KEPT;
}

static enum delivery deliver_at_place(tram_loop *loop, void *target, tram_message *message) {
    struct move *move = target;
    if (likely(move->deliver != NULL))
        return move->deliver(loop, move->target, message);
    /* It has left. What comes is sent on, or a request: that needs no memory. */
    kept_append(&move->kept, tram__kept_new(loop, message, move->home_slot), true);
    return MESSAGE_KEPT;
}

bool tram__forward_credit(struct addressee *addressee, struct mail *mail) {
    if (likely(!addressee->keeps))
        return false;
    if (addressee->deliver == deliver_at_home)
        forward(addressee->target, addressee, mail, false);
    else if (addressee->deliver == deliver_at_place)
        kept_append(&((struct move *)addressee->target)->kept, mail, false);
    else
        return false;
    return true;
}

bool tram__address_moved(const struct addressee *addressee) {
    return addressee->deliver == deliver_at_home || addressee->deliver == deliver_at_place;
}

/* ---- The life of a move ---- */

static void hold(struct move *move) {
    atomic_fetch_add_explicit(&move->references, 1, memory_order_relaxed);
}

static void release(struct move *move) {
    between_steps();
    if (atomic_fetch_sub_explicit(&move->references, 1, memory_order_acq_rel) != 1)
        return;
    tram__addressees_release(move->home);
    if (move->where)
        tram__addressees_release(move->where);
    memory_put(memory, move->forwarding, sizeof *move->forwarding);
    memory_put(memory, move, sizeof *move);
}

/* Mail of the move's, with a reference. False: it was refused, and the reference is the caller's to release. */
static bool post(struct move *move, struct addressees *to, struct mail *mail, const struct mail_kind *kind) {
    mail->kind = kind;
    hold(move); /* and its holds, for within the post what the mail has may be released */
    bool posted = !addressees_forked(to) && tram__mailbox_post(to->mailbox, mail) == 0;
    release(move);
    return posted;
}

static struct move *of_arrived(struct mail *mail) {
    return container_of(mail, struct move, arrived);
}

static struct move *of_left(struct mail *mail) {
    return container_of(mail, struct move, left);
}

/* Nothing follows. */
static void left_let_go(struct mail *mail) {
    release(of_left(mail));
}

/* At home. NULL: the target has ended. */
static struct forwarding *forwarding_of(tram_loop *loop, const struct move *move) {
    struct addressee *addressee = addressee_of(here(loop), move->home_slot, move->home_generation);
    return addressee && addressee->deliver == deliver_at_home ? addressee->target : NULL;
}

static void forwarding_free(struct forwarding *forwarding) {
    list_remove(&forwarding->link);
    memory_put(memory, forwarding, sizeof *forwarding);
}

/* The place gives its slot back. */
static void give_back(struct move *move) {
    tram__addressee_remove(move->where, move->slot);
    list_remove(&move->link);
    move->deliver = NULL;
}

/* ---- What happens at home ---- */

static void run_as(tram_loop *loop, const struct kept *kept, uint32_t slot, uint32_t generation) {
    tram__kept_address(kept, slot, generation);
    tram__kept_run(loop, kept);
}

/* The target is on this loop itself: its slot is the home's again. */
static void come_home(tram_loop *loop, struct forwarding *forwarding) {
    struct move *move = forwarding->place;
    const struct kept kept = forwarding->kept;
    uint32_t slot = forwarding->slot;
    struct addressee *addressee = addressee_at(here(loop), slot);
    addressee->deliver = move->deliver;
    addressee->target = move->target;
    addressee->keeps = false;
    addressee->queued = 0;
    *move->target_slot = slot;
    give_back(move);
    release(move);
    forwarding_free(forwarding);
    run_as(loop, &kept, slot, addressee->slot.generation);
}

static void send_all_on(tram_loop *loop, struct forwarding *forwarding) {
    const struct move *place = forwarding->place;
    struct addressee *addressee = addressee_at(here(loop), forwarding->slot);
    const struct kept kept = kept_take(&forwarding->kept);
    addressee->delivered += addressee->queued;
    addressee->queued = 0;
    tram__kept_address(&kept, place->slot, place->generation);
    if (kept.first && tram__mailbox_post_all(place->where->mailbox, kept.first))
        tram__kept_discard(&kept);
}

/* Once the target is somewhere, and all has come back. */
static void go_on(tram_loop *loop, struct forwarding *forwarding) {
    const struct move *place = forwarding->place;
    if (!place || forwarding->awaited)
        return;
    if (place->where == here(loop) && place->deliver)
        come_home(loop, forwarding);
    else
        send_all_on(loop, forwarding);
}

static void arrived_run(tram_loop *loop, struct mail *mail) {
    struct move *move = of_arrived(mail);
    struct forwarding *forwarding = forwarding_of(loop, move);
    if (forwarding) {
        forwarding->place = move;
        go_on(loop, forwarding);
    }
    release(move);
}

static void arrived_discard(struct mail *mail) {
    release(of_arrived(mail));
}
static const struct mail_kind arrived_mail = {arrived_run, arrived_discard, MAIL_KEPT | MAIL_PART};

/* It came back from the place, with what had come there. */
static void returned(tram_loop *loop, struct move *move, const struct kept *kept) {
    struct forwarding *forwarding = forwarding_of(loop, move);
    if (forwarding) {
        struct addressee *addressee = addressee_at(here(loop), forwarding->slot);
        addressee->delivered -= kept->messages;
        addressee->queued += kept->messages;
        kept_put_in_front(&forwarding->kept, kept);
        forwarding->awaited--;
        go_on(loop, forwarding);
    } else {
        run_as(loop, kept, move->home_slot, move->home_generation); /* drops it */
    }
    release(move);
}

static void returned_run(tram_loop *loop, struct mail *mail) {
    const struct kept kept = kept_take(&of_left(mail)->kept);
    returned(loop, of_left(mail), &kept);
}

static void returned_discard(struct mail *mail) {
    struct move *move = of_left(mail);
    const struct kept kept = kept_take(&move->kept);
    (addressees_forked(move->home) ? tram__kept_forget : tram__kept_discard)(&kept);
    release(move);
}

static const struct mail_kind returned_mail = {returned_run, returned_discard, MAIL_KEPT | MAIL_PART};

/* The same of a loop that has closed, where nothing is left. */
static void returned_nothing_run(tram_loop *loop, struct mail *mail) {
    returned(loop, of_left(mail), &(struct kept){0});
}

static const struct mail_kind returned_nothing_mail = {returned_nothing_run, left_let_go, MAIL_KEPT | MAIL_PART};

/* ---- The fence ---- */

/* All that the home had sent has come. */
static void fence_run(tram_loop *loop, struct mail *mail) {
    struct move *move = of_left(mail);
    (void)loop;
    give_back(move);
    if (!post(move, move->home, mail, &returned_mail))
        returned_discard(mail);
    release(move);
}

static void fence_discard(struct mail *mail) {
    struct move *move = of_left(mail);
    if (!post(move, move->home, mail, &returned_nothing_mail))
        release(move);
}

static const struct mail_kind fence_mail = {fence_run, fence_discard, MAIL_KEPT | MAIL_PART};

static void left_run(tram_loop *loop, struct mail *mail) {
    struct move *move = of_left(mail);
    struct forwarding *forwarding = forwarding_of(loop, move);
    if (forwarding) {
        forwarding->place = NULL;
        forwarding->awaited++;
    }
    if (!post(move, move->where, mail, &fence_mail))
        returned(loop, move, &(struct kept){0});
}

/* The home has closed: the place need not keep anything. */
static void left_discard(struct mail *mail) {
    struct move *move = of_left(mail);
    if (!post(move, move->where, mail, &fence_mail))
        release(move);
}

static const struct mail_kind left_mail = {left_run, left_discard, MAIL_KEPT | MAIL_PART};

/* ---- The end ---- */

static void ended_run(tram_loop *loop, struct mail *mail) {
    struct move *move = of_left(mail);
    struct forwarding *forwarding = forwarding_of(loop, move);
    if (forwarding) {
        const struct kept kept = forwarding->kept;
        tram__addressee_remove(here(loop), forwarding->slot);
        forwarding_free(forwarding);
        run_as(loop, &kept, move->home_slot, move->home_generation); /* drops it */
    }
    release(move);
}

static const struct mail_kind ended_mail = {ended_run, left_let_go, MAIL_KEPT | MAIL_PART};

void tram__move_end(struct move *move) {
    if (!post(move, move->home, &move->left, &ended_mail))
        release(move);
}

void tram__address_end(tram_loop *loop, uint32_t slot) {
    const struct addressee *addressee = addressee_at(here(loop), slot);
    if (likely(addressee->deliver != deliver_at_place)) {
        tram__addressee_remove(here(loop), slot);
        return;
    }
    struct move *move = addressee->target;
    give_back(move);
    tram__move_end(move);
}

/* What was kept for others to receive is dropped, as is all that comes by this loop. */
static void end_all(struct forwarding_state *state, void (*drop)(const struct kept *kept)) {
    while (!list_empty(&state->moves)) {
        struct move *move = container_of(state->moves.next, struct move, link);
        const struct kept kept = kept_take(&move->kept);
        bool present = move->deliver != NULL;
        give_back(move);
        if (present) {
            *move->target_slot = 0;
            tram__move_end(move);
        } else {
            drop(&kept);
            release(move);
        }
    }
    while (!list_empty(&state->forwardings)) {
        struct forwarding *forwarding = container_of(state->forwardings.next, struct forwarding, link);
        const struct kept kept = forwarding->kept;
        tram__addressee_remove(here(state->loop), forwarding->slot);
        forwarding_free(forwarding);
        drop(&kept);
    }
}

static void forwarding_ending(struct close_hook *hook, enum shutdown_mode ending) {
    if (ending != IO_SHUTDOWN_NOW)
        return;
    list_remove(&hook->link);
    end_all(container_of(hook, struct forwarding_state, hook), tram__kept_discard);
}

/* There is something only in a forked child, where nobody closed the loop. */
static void free_forwarding(tram_loop *loop, struct loop_state *base) {
    (void)loop;
    end_all(container_of(base, struct forwarding_state, state), tram__kept_forget);
}

static void validate(const struct loop_state *base) {
    const struct forwarding_state *state = container_of(base, struct forwarding_state, state);
    list_validate(&state->moves);
    list_validate(&state->forwardings);
    for (const struct list *link = state->forwardings.next; link != &state->forwardings; link = link->next) {
        const struct forwarding *forwarding = container_of(link, struct forwarding, link);
        const struct addressee *addressee = addressee_at(here(state->loop), forwarding->slot);
        TRAM_ASSERT(addressee->target == forwarding && addressee->keeps);
        TRAM_ASSERT(!forwarding->kept.first || !forwarding->place || forwarding->awaited);
        TRAM_ASSERT(addressee->queued == forwarding->kept.messages);
    }
}

/* Made when it is first needed; NULL: out of memory. */
static struct forwarding_state *forwarding_state(tram_loop *loop) {
    struct forwarding_state *state = loop_slot(loop, FORWARDING_SLOT);
    if (state)
        return state;
    state = tram__loop_slot_open(loop, FORWARDING_SLOT, sizeof *state, free_forwarding);
    if (!state)
        return NULL;
    state->state.validate = validate;
    state->loop = loop;
    list_init(&state->moves);
    list_init(&state->forwardings);
    loop_add_close_hook(loop, &state->hook, forwarding_ending);
    return state;
}

/* ---- Leaving and arriving ---- */

int tram__move_new(tram_loop *loop, uint32_t slot, struct move **ret_move) {
    const struct addressee *addressee = addressee_at(here(loop), slot);
    bool moved = addressee->deliver == deliver_at_place;
    if (!moved && !forwarding_state(loop))
        return -ENOMEM;
    struct move *move = tram__memory_get_zero(memory, sizeof *move);
    struct forwarding *forwarding = move && !moved ? tram__memory_get_zero(memory, sizeof *forwarding) : NULL;
    if (!move || (!moved && !forwarding)) {
        memory_put(memory, move, sizeof *move);
        return -ENOMEM;
    }
    const struct move *before = moved ? addressee->target : NULL;
    atomic_init(&move->references, 1);
    move->home = addressees_hold(moved ? before->home : here(loop));
    move->home_slot = moved ? before->home_slot : slot;
    move->home_generation = moved ? before->home_generation : addressee->slot.generation;
    move->forwarding = forwarding;
    if (forwarding)
        forwarding->slot = slot;
    *ret_move = move;
    return 0;
}

void tram__move_undo(struct move *move) {
    release(move);
}

static void leave_home(tram_loop *loop, uint32_t slot, struct move *move) {
    struct addressee *addressee = addressee_at(here(loop), slot);
    list_append(&forwarding_state(loop)->forwardings, &move->forwarding->link);
    addressee->deliver = deliver_at_home;
    addressee->target = move->forwarding;
    addressee->keeps = true;
    move->forwarding = NULL;
}

static void leave_place(struct addressee *addressee, struct move *place) {
    place->deliver = NULL;
    addressee->keeps = true;
    hold(place); /* for its mail */
    if (post(place, place->home, &place->left, &left_mail))
        return;
    give_back(place);
    release(place);
    release(place);
}

void tram__address_leave(tram_loop *loop, uint32_t slot, struct move *move) {
    struct addressee *addressee = addressee_at(here(loop), slot);
    if (addressee->deliver == deliver_at_place)
        leave_place(addressee, addressee->target);
    else
        leave_home(loop, slot, move);
}

int tram__address_arrive(tram_loop *loop, struct move *move, deliver_function deliver, void *target, uint32_t *slot) {
    struct forwarding_state *state = forwarding_state(loop);
    int status = state ? tram__address_open(loop, deliver_at_place, move, &move->slot) : -ENOMEM;
    if (status)
        return status;
    move->where = addressees_hold(here(loop));
    move->generation = addressee_at(move->where, move->slot)->slot.generation;
    move->deliver = deliver;
    move->target = target;
    move->target_slot = slot;
    *slot = move->slot;
    list_append(&state->moves, &move->link);
    hold(move); /* for its mail */
    if (post(move, move->home, &move->arrived, &arrived_mail))
        return 0;
    *slot = 0;
    give_back(move);
    release(move);
    release(move);
    return 0;
}

/* ---- What the address is ---- */

tram_address tram__address_of(tram_loop *loop, uint32_t slot) {
    const struct addressee *addressee = addressee_at(here(loop), slot);
    if (likely(addressee->deliver != deliver_at_place))
        return address_here(actors_present(loop), slot);
    const struct move *move = addressee->target;
    return (tram_address){move->home->number, move->home->generation, move->home_slot, move->home_generation};
}

bool tram__address_is_void(tram_loop *loop, uint32_t slot) {
    const struct addressee *addressee = addressee_at(here(loop), slot);
    if (likely(addressee->deliver != deliver_at_place))
        return false;
    const struct mailbox *home = ((const struct move *)addressee->target)->home->mailbox;
    return atomic_load_explicit(&home->state, memory_order_relaxed) == MAILBOX_CLOSED;
}
