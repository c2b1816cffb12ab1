/*
 * Measures posts between threads, over whatever library is linked with it (post.h).
 *
 *     post-NAME SCENARIO COUNT
 *
 * worker    one-way, the sender runs a loop itself and posts from its callbacks; ns per post
 * foreign   one-way, the sender is a thread without a loop; ns per post
 * busy      foreign, to a loop that always has something else to do: wake-up calls are counted
 * pingpong  two loops that sleep answer each other; µs per round trip
 * spin      the same, both polling for a while before they sleep
 * caller    a thread without a loop asks a sleeping loop and sleeps until it answers; µs per round trip
 *
 * With ANSWER a post is a request, for a library that has none: what it runs posts back to the sender ("worker" only).
 *
 * Never more than WINDOW posts are on the way, there or back, as wherever memory is bounded. Calls of write() are
 * counted, which is how each of the libraries wakes a loop.
 */
#include "post.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "micro.h"

#define WINDOW  4096
#define BURST   256
#define SPIN_NS 50000

/* ---- Counting wake-up calls: this write() is found before the C library's ---- */

static _Atomic uint64_t writes;

ssize_t write(int fd, const void *data, size_t size) {
    atomic_fetch_add_explicit(&writes, 1, memory_order_relaxed);
    return syscall(SYS_write, fd, data, size);
}

/* ---- A party on its thread ---- */

struct seat {
    struct party *party;
    pthread_t thread;
};

static void *sit(void *arg) {
    struct seat *seat = arg;
    party_run(seat->party);
    return NULL;
}

static void seat_start(struct seat *seat, unsigned cpu, uint64_t spin_ns) {
    seat->party = party_new(spin_ns);
    seat->thread = micro_thread(cpu, sit, seat);
}

static void seat_end(struct seat *seat) {
    pthread_join(seat->thread, NULL);
    party_free(seat->party);
}

static int stop(struct tram_loop *loop, void *arg) {
    (void)loop;
    party_stop(arg);
    return 0;
}

/* ---- One way ---- */

static struct {
    struct seat sender, receiver;
    uint64_t total;
    uint64_t sent;
    uint64_t slice;      /* posts in a slice */
    uint64_t next_slice; /* how many have been received when it begins */
    struct micro_slices slices;
    uint64_t begin_writes, end_writes;
    _Atomic bool done;
    _Alignas(128) _Atomic uint64_t received;
    _Alignas(128) uint64_t answered;
} way;

#ifdef ANSWER
static int count_answer(struct tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    way.answered++;
    return 0;
}
#endif

static int receive(struct tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
#ifdef ANSWER
    party_post(way.sender.party, count_answer, NULL);
#endif
    uint64_t received = atomic_load_explicit(&way.received, memory_order_relaxed) + 1;
    atomic_store_explicit(&way.received, received, memory_order_release);
    if (received != way.next_slice)
        return 0;
    way.next_slice += way.slice;
    way.end_writes = writes;
    if (!way.slices.count)
        way.begin_writes = way.end_writes;
    micro_slice(&way.slices);
    if (received == way.total) {
        atomic_store(&way.done, true);
        party_stop(way.receiver.party);
    }
    return 0;
}

/* The posts that are on the way no more. */
static uint64_t over(void) {
#if defined ASK
    return party_answered();
#elif defined ANSWER
    return way.answered;
#else
    return atomic_load_explicit(&way.received, memory_order_acquire);
#endif
}

static void send_burst(void) {
    uint64_t room = WINDOW - (way.sent - over());
    uint64_t count = room < BURST ? room : BURST;
    if (count > way.total - way.sent)
        count = way.total - way.sent;
    for (uint64_t i = 0; i < count; i++)
        party_post(way.receiver.party, receive, &way);
    way.sent += count;
}

static int send_some(struct tram_loop *loop, void *arg) {
    (void)loop;
    send_burst();
#if defined ANSWER || defined ASK
    bool more = over() < way.total; /* who asks is there for the last answer */
#else
    bool more = way.sent < way.total;
#endif
    if (more)
        party_soon(way.sender.party, send_some, arg);
    else
        party_stop(way.sender.party);
    return 0;
}

static int stay_busy(struct tram_loop *loop, void *arg) {
    (void)loop;
    if (!atomic_load_explicit(&way.done, memory_order_relaxed))
        party_soon(way.receiver.party, stay_busy, arg);
    return 0;
}

static void tell_way(void) {
    micro_tell("ns", micro_median(&way.slices) / (double)way.slice);
    micro_tell("wakes", (double)(way.end_writes - way.begin_writes));
}

static void one_way(uint64_t count, bool worker, bool busy) {
    way.slice = count / MICRO_SLICES;
    way.next_slice = way.slice * 5; /* what comes before is to get warm */
    way.total = way.next_slice + way.slice * MICRO_SLICES;
    seat_start(&way.receiver, 1, 0);
    if (busy) {
        party_post(way.receiver.party, stay_busy, NULL);
        usleep(20000);
    }
    if (worker) {
        seat_start(&way.sender, 0, 0);
        party_post(way.sender.party, send_some, NULL);
        seat_end(&way.sender);
    } else {
        while (way.sent < way.total)
            send_burst();
    }
    seat_end(&way.receiver);
    tell_way();
}

/* ---- There and back ---- */

static struct {
    struct seat a, b;
    uint64_t rounds, slice, next_slice;
    struct micro_slices slices;
    int answered; /* eventfd */
} trip;

static void trip_begin(uint64_t count) {
    trip.slice = count / MICRO_SLICES;
    trip.next_slice = trip.slice * 5;
}

/* After each round trip. True: that was the last. */
static bool trip_done(void) {
    if (++trip.rounds != trip.next_slice)
        return false;
    trip.next_slice += trip.slice;
    micro_slice(&trip.slices);
    return trip.slices.count > MICRO_SLICES;
}

static void tell_trip(void) {
    micro_tell("us", micro_median(&trip.slices) / 1000 / (double)trip.slice);
}

static int pong(struct tram_loop *loop, void *arg);

static int ping(struct tram_loop *loop, void *arg) {
    (void)loop;
    party_post(trip.a.party, pong, arg);
    return 0;
}

static int pong(struct tram_loop *loop, void *arg) {
    (void)loop;
    if (!trip_done()) {
        party_post(trip.b.party, ping, arg);
        return 0;
    }
    party_post(trip.b.party, stop, trip.b.party);
    party_stop(trip.a.party);
    return 0;
}

static void ping_pong(uint64_t count, uint64_t spin_ns) {
    trip_begin(count);
    seat_start(&trip.a, 0, spin_ns);
    seat_start(&trip.b, 1, spin_ns);
    party_post(trip.a.party, pong, NULL);
    seat_end(&trip.a);
    seat_end(&trip.b);
    tell_trip();
}

static int answer(struct tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    uint64_t one = 1;
    MICRO_CHECK(syscall(SYS_write, trip.answered, &one, sizeof one) == sizeof one);
    return 0;
}

static void caller(uint64_t count) {
    trip.answered = eventfd(0, EFD_CLOEXEC);
    seat_start(&trip.b, 1, 0);
    trip_begin(count);
    do {
        uint64_t value;
        party_post(trip.b.party, answer, NULL);
        MICRO_CHECK(read(trip.answered, &value, sizeof value) == sizeof value);
    } while (!trip_done());
    tell_trip();
    party_post(trip.b.party, stop, trip.b.party);
    seat_end(&trip.b);
}

int main(int count, char **arguments) {
    micro_pin(0);
    if (count == 3) {
        const char *scenario = arguments[1];
        uint64_t number = strtoull(arguments[2], NULL, 10);
        if (strcmp(scenario, "worker") == 0)
            return one_way(number, true, false), 0;
        if (strcmp(scenario, "foreign") == 0)
            return one_way(number, false, false), 0;
        if (strcmp(scenario, "busy") == 0)
            return one_way(number, false, true), 0;
        if (strcmp(scenario, "pingpong") == 0)
            return ping_pong(number, 0), 0;
        if (strcmp(scenario, "spin") == 0)
            return party_can_spin ? ping_pong(number, SPIN_NS), 0 : 2;
        if (strcmp(scenario, "caller") == 0)
            return caller(number), 0;
    }
    fprintf(stderr, "usage: %s worker|foreign|busy|pingpong|spin|caller COUNT\n", arguments[0]);
    return 2;
}
