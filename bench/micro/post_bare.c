/*
 * post.h with nothing but a queue: what a program for this one purpose would do. An intrusive stack that the receiver
 * takes whole and turns round, cells of the sender's own that come back in batches, a word that says whether the
 * receiver sleeps, and an eventfd to wake it. It knows one sender, two of them only in turns.
 */
#include "post.h"

#include <ck_stack.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "micro.h"

const bool party_can_spin = true;

struct cell {
    ck_stack_entry_t entry;
    struct cell *rest; /* of a batch that goes back */
    post_function function;
    void *arg;
};

struct party {
    ck_stack_t inbox;
    _Alignas(128) ck_stack_t back;   /* batches of used cells */
    _Alignas(128) struct cell *free; /* the sender's */
    _Alignas(128) _Atomic bool sleeping;
    _Alignas(128) int eventfd;
    uint64_t spin_ns;
    bool stopping;
    post_function soon;
    void *soon_arg;
};

struct party *party_new(uint64_t spin_ns) {
    struct party *party = aligned_alloc(128, (sizeof *party + 127) / 128 * 128);
    *party = (struct party){.spin_ns = spin_ns, .eventfd = eventfd(0, EFD_CLOEXEC)};
    MICRO_CHECK(party->eventfd >= 0);
    struct cell *cells = calloc(8192, sizeof *cells); /* more than are ever on the way */
    for (size_t i = 8192; i-- > 0;) {
        cells[i].rest = party->free;
        party->free = &cells[i];
    }
    return party;
}

void party_free(struct party *party) {
    close(party->eventfd);
    free(party);
}

void party_post(struct party *party, post_function function, void *arg) {
    struct cell *cell = party->free;
    while (!cell) {
        ck_stack_entry_t *batch = ck_stack_batch_pop_upmc(&party->back);
        while (batch) { /* in general one, so this is seldom long */
            struct cell *first = (struct cell *)(void *)batch, *last = first;
            batch = batch->next;
            if (!party->free) {
                party->free = first;
                continue;
            }
            while (last->rest)
                last = last->rest;
            last->rest = party->free;
            party->free = first;
        }
        cell = party->free;
    }
    party->free = cell->rest;
    cell->function = function;
    cell->arg = arg;
    ck_stack_push_upmc(&party->inbox, &cell->entry);
    ck_pr_fence_atomic_load();
    if (atomic_load_explicit(&party->sleeping, memory_order_relaxed) &&
        atomic_exchange_explicit(&party->sleeping, false, memory_order_relaxed)) {
        uint64_t one = 1;
        MICRO_CHECK(write(party->eventfd, &one, sizeof one) == sizeof one);
    }
}

static void run_all(struct party *party) {
    ck_stack_entry_t *entry = ck_stack_batch_pop_upmc(&party->inbox), *oldest = NULL;
    while (entry) {
        ck_stack_entry_t *next = entry->next;
        entry->next = oldest;
        oldest = entry;
        entry = next;
    }
    struct cell *used = NULL;
    while (oldest) {
        struct cell *cell = (struct cell *)(void *)oldest;
        oldest = oldest->next;
        cell->function(NULL, cell->arg);
        cell->rest = used;
        used = cell;
    }
    if (used)
        ck_stack_push_upmc(&party->back, &used->entry);
}

static bool empty(const struct party *party) {
    return !ck_pr_load_ptr(&party->inbox.head);
}

static void sleep_until_mail(struct party *party) {
    if (party->spin_ns) {
        uint64_t end = micro_now() + party->spin_ns;
        while (empty(party) && micro_now() < end)
            ck_pr_stall();
        if (!empty(party))
            return;
    }
    atomic_store_explicit(&party->sleeping, true, memory_order_relaxed);
    ck_pr_fence_store_load();
    uint64_t count;
    if (empty(party) || !atomic_exchange_explicit(&party->sleeping, false, memory_order_relaxed))
        MICRO_CHECK(read(party->eventfd, &count, sizeof count) == sizeof count);
}

void party_run(struct party *party) {
    while (!party->stopping) {
        post_function soon = party->soon;
        party->soon = NULL;
        if (soon)
            soon(NULL, party->soon_arg);
        run_all(party);
        if (!party->stopping && !party->soon && empty(party))
            sleep_until_mail(party);
    }
}

void party_stop(struct party *party) {
    party->stopping = true;
}

void party_soon(struct party *party, post_function function, void *arg) {
    party->soon = function;
    party->soon_arg = arg;
}
