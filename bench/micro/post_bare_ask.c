/*
 * post.h with ASK and nothing but two queues: the least that a request and its reply cost. Cells of the asker's own, a
 * line each, go there and come back; up to BATCH of them go together, the first with the others on it, and the rest
 * with the end of a turn or as soon as the other side sleeps. No future, no deadline, nothing else that a loop waits
 * for. It knows one asker.
 */
#include "post.h"

#include <ck_stack.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "micro.h"

#define BATCH 64

const bool party_can_spin = false;

struct cell {
    _Alignas(64) ck_stack_entry_t entry;
    struct cell *followers; /* of the first that go together, and so on */
    struct party *home;     /* the asker; NULL: of a thread without a party, to be run and freed */
    post_function function;
    void *arg;
};

struct chain {
    struct cell *first, *last;
    unsigned count;
};

struct party {
    ck_stack_t inbox;
    _Atomic bool sleeping;
    int eventfd;
    _Alignas(128) struct cell *free;
    struct party *other;
    struct chain chain; /* for the other one */
    uint64_t answered;
    bool stopping;
    post_function soon;
    void *soon_arg;
};

static _Thread_local struct party *own;

struct party *party_new(uint64_t spin_ns) {
    (void)spin_ns;
    struct party *party = aligned_alloc(128, (sizeof *party + 127) / 128 * 128);
    *party = (struct party){.eventfd = eventfd(0, EFD_CLOEXEC)};
    MICRO_CHECK(party->eventfd >= 0);
    return party;
}

void party_free(struct party *party) {
    close(party->eventfd);
    free(party);
}

/* ---- There and back ---- */

static void push(struct party *to, struct cell *cell) {
    ck_stack_push_upmc(&to->inbox, &cell->entry);
    ck_pr_fence_atomic_load();
    if (atomic_load_explicit(&to->sleeping, memory_order_relaxed) &&
        atomic_exchange_explicit(&to->sleeping, false, memory_order_relaxed)) {
        uint64_t one = 1;
        MICRO_CHECK(write(to->eventfd, &one, sizeof one) == sizeof one);
    }
}

static void push_chain(struct party *party) {
    if (!party->chain.count)
        return;
    party->chain.count = 0;
    push(party->other, party->chain.first);
}

static void send(struct party *party, struct party *to, struct cell *cell) {
    struct chain *chain = &party->chain;
    party->other = to;
    cell->followers = NULL;
    if (chain->count++)
        chain->last->followers = cell;
    else
        chain->first = cell;
    chain->last = cell;
    if (chain->count == BATCH || atomic_load_explicit(&to->sleeping, memory_order_relaxed))
        push_chain(party);
}

static struct cell *new_cells(void) {
    struct cell *cells = aligned_alloc(64, 64 * sizeof *cells);
    for (unsigned i = 0; i < 64; i++)
        cells[i].followers = i < 63 ? &cells[i + 1] : NULL;
    return cells;
}

void party_post(struct party *party, post_function function, void *arg) {
    struct cell *cell;
    if (!own) {
        cell = aligned_alloc(64, sizeof *cell);
        *cell = (struct cell){.function = function, .arg = arg};
        push(party, cell);
        return;
    }
    cell = own->free ? own->free : new_cells();
    own->free = cell->followers;
    __builtin_prefetch(own->free, 1);
    cell->home = own;
    cell->function = function;
    cell->arg = arg;
    send(own, party, cell);
}

uint64_t party_answered(void) {
    return own->answered;
}

static int replied(void *arg) {
    struct party *party = arg;
    party->answered++;
    return 0;
}

static void run(struct party *party, struct cell *cell) {
    if (cell->home == party) {
        static int (*volatile callback)(void *) = replied;
        callback(party);
        cell->followers = party->free;
        party->free = cell;
        return;
    }
    cell->function(NULL, cell->arg);
    if (cell->home)
        send(party, cell->home, cell);
    else
        free(cell);
}

/* ---- The loop ---- */

static void run_all(struct party *party) {
    ck_stack_entry_t *entry = ck_stack_batch_pop_upmc(&party->inbox), *oldest = NULL;
    while (entry) {
        ck_stack_entry_t *next = entry->next;
        entry->next = oldest;
        oldest = entry;
        entry = next;
    }
    while (oldest) {
        struct cell *cell = (struct cell *)(void *)oldest;
        oldest = oldest->next;
        while (cell) {
            struct cell *next = cell->followers;
            __builtin_prefetch(next, 1);
            run(party, cell);
            cell = next;
        }
    }
}

static bool empty(const struct party *party) {
    return !ck_pr_load_ptr(&party->inbox.head);
}

static void sleep_until_mail(struct party *party) {
    atomic_store_explicit(&party->sleeping, true, memory_order_relaxed);
    ck_pr_fence_store_load();
    uint64_t count;
    if (empty(party) || !atomic_exchange_explicit(&party->sleeping, false, memory_order_relaxed))
        MICRO_CHECK(read(party->eventfd, &count, sizeof count) == sizeof count);
}

void party_run(struct party *party) {
    own = party;
    while (!party->stopping) {
        post_function soon = party->soon;
        party->soon = NULL;
        if (soon)
            soon(NULL, party->soon_arg);
        run_all(party);
        push_chain(party);
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
