/*
 * Sockets on their way. Each ends as it succeeds, fails or is not wanted any more, and the operation stays as long as
 * an event may name it.
 */
#include "transports/connect/attempts.h"

#include <errno.h>
#include <netinet/in.h>

#include "core/loop/loop.h"
#include "transports/socket/socket.h"
#include "transports/socket/tcp.h"

/* One socket on its way to one address. */
struct attempt {
    struct io io;
    struct deferred_free deferred;
    struct attempts *attempts;
    size_t sent_early; /* of what is sent first, with the packet that connects */
};

/* Those of one try, one per remote address. */
struct attempt_list {
    struct deferred_free deferred;
    size_t count;
    struct attempt items[];
};

static void start_attempts(struct attempts *attempts);

static tram_loop *loop_of(const struct attempts *attempts) {
    return attempts->operation->loop;
}

/* ---- Ending ---- */

/* An event of this tick may still name the attempt: the operation that contains it stays until the tick ends. */
static void attempt_dispose(tram_loop *loop, struct deferred_free *deferred) {
    (void)loop;
    tram__future_drop(container_of(deferred, struct attempt, deferred)->attempts->operation);
}

/* Takes the descriptor away from the attempt. */
static int attempt_leave(struct attempt *attempt) {
    struct attempts *attempts = attempt->attempts;
    int fd = attempt->io.fd;
    tram__io_remove(&attempt->io);
    attempts->active--;
    tram_future_hold(attempts->operation);
    tram__loop_free_later(loop_of(attempts), &attempt->deferred, attempt_dispose);
    return fd;
}

void tram__attempts_end(struct attempts *attempts) {
    deadline_cancel(loop_of(attempts), &attempts->stagger);
    for (size_t i = 0; i < attempts->started; i++)
        if (io_added(&attempts->list->items[i].io))
            loop_of(attempts)->sys->close(attempt_leave(&attempts->list->items[i]));
}

static void list_free(const tram_allocator *allocator, struct attempt_list *list) {
    if (list)
        memory_put(allocator, list, sizeof *list + list->count * sizeof *list->items);
}

static void list_dispose(tram_loop *loop, struct deferred_free *deferred) {
    list_free(&loop->allocator, container_of(deferred, struct attempt_list, deferred));
}

void tram__attempts_clear(struct attempts *attempts) {
    if (attempts->list) /* its attempts may wait for the end of this tick, and are ahead of it */
        tram__loop_free_later(loop_of(attempts), &attempts->list->deferred, list_dispose);
    attempts->list = NULL;
    attempts->started = 0;
    tram__failures_clear(&attempts->failures);
}

void tram__attempts_fini(struct attempts *attempts) {
    tram__failures_clear(&attempts->failures);
    list_free(&loop_of(attempts)->allocator, attempts->list);
}

/* ---- Connected, or not ---- */

/*
 * A socket that connects to a local port which nobody listens to may be given that very port and meet itself; to the
 * user that is no server (design notes, names and connects).
 */
static bool met_itself(const tram_socket_address *local, const tram_socket_address *remote) {
    return tram__address_port(local) == tram__address_port(remote) && tram__address_equal(local, remote);
}

static void attempt_ready(struct io *io, unsigned events) {
    (void)events;
    struct attempt *attempt = container_of(io, struct attempt, io);
    struct attempts *attempts = attempt->attempts;
    tram_loop *loop = loop_of(attempts);
    size_t index = (size_t)(attempt - attempts->list->items);
    const tram_socket_address *remote = &attempts->remote->items[index].address;
    tram_socket_address local = {.size = sizeof local.address}, reached = *remote;
    int error = 0;
    socklen_t size = sizeof error;
    if (loop->sys->getsockopt(io->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        error = errno;
    if (!error && loop->sys->getsockname(io->fd, (struct sockaddr *)&local.address, &local.size) < 0)
        error = errno;
    if (!error && !tram__address_concrete(remote)) { /* the kernel has made an address of this machine of it */
        reached.size = sizeof reached.address;
        if (loop->sys->getpeername(io->fd, (struct sockaddr *)&reached.address, &reached.size) < 0)
            error = errno;
    }
    if (!error && met_itself(&local, &reached))
        error = ECONNREFUSED;
    int fd = attempt_leave(attempt);
    if (!error) {
        tram_socket_address peer = *remote; /* the list ends with the operation */
        if (attempts->first)
            attempts->first->taken = attempt->sent_early;
        attempts->connected(attempts, fd, &peer);
        return;
    }
    loop->sys->close(fd);
    tram__failures_add_address(&attempts->failures, index, -error, "connect", remote);
    /* In a race the next one has started already, unless this was the latest (C-7). */
    if (index + 1 == attempts->started)
        start_attempts(attempts);
    else if (!attempts->active && attempts->started == attempts->list->count)
        attempts->failed(attempts);
}

static const struct io_kind attempt_kind = {
    .name = "connect",
    .ready = attempt_ready,
};

/* ---- Beginning ---- */

/* Binds to the first local address of the family that can be had (C-6). False: none, and the attempt is over. */
static bool bind_local(struct attempts *attempts, size_t index, int fd, int family) {
    const struct sys *sys = loop_of(attempts)->sys;
    bool tried = false;
    for (size_t i = 0; i < attempts->local->count; i++) {
        const tram_socket_address *local = &attempts->local->items[i].address;
        if (address_family(local) != family)
            continue;
        tried = true;
        /* Without it the kernel would choose a port that is free for all peers, of which it soon runs out. */
        int on = 1;
        if (!tram__address_port(local))
            sys->setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        else /* an earlier connection from there may be in TIME_WAIT, for a minute */
            sys->setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (sys->bind(fd, (const struct sockaddr *)&local->address, local->size) == 0)
            return true;
        tram__failures_add_address(&attempts->failures, index, -errno, "bind", local);
    }
    if (!tried)
        tram__failures_add(&attempts->failures, index, -EADDRNOTAVAIL, "bind",
                           "no local address of the family of the remote one");
    return false;
}

/*
 * A Unix socket whose listener's queue is full: the kernel would let a blocking caller wait and tells nobody else when
 * there is room, so the attempt is made again and again until then (L-38). False: no memory for the timer.
 */
static int attempt_later(struct attempts *attempts) {
    tram_loop *loop = loop_of(attempts);
    int status = tram__deadline_start_after(loop, &attempts->stagger, TRAM_CONNECT_RETRY_NS);
    if (!status)
        attempts->started--;
    return status;
}

/*
 * With early data the kernel is asked to send it with the SYN. It does that where it has a cookie of the peer's, and
 * asks for one where it has none; where that is not allowed (net.ipv4.tcp_fastopen), connecting is as always.
 */
static int connect_socket(struct attempts *attempts, struct attempt *attempt, int fd, const struct candidate *remote) {
    const struct sys *sys = loop_of(attempts)->sys;
    const struct sockaddr *address = (const struct sockaddr *)&remote->address.address;
    socklen_t size = remote->address.size;
    struct held *first = attempts->first;
    if (attempts->fast_open && (!remote->protocol || remote->protocol == IPPROTO_TCP)) {
        ssize_t sent;
        do
            sent = sys->sendto(fd, first->bytes, first->size, MSG_FASTOPEN | MSG_NOSIGNAL, address, size);
        while (sent < 0 && errno == EINTR);
        if (sent < 0 && errno == EALREADY) /* the one that was interrupted had begun */
            return -EINPROGRESS;
        attempt->sent_early = (size_t)MAX(sent, 0);
        if (sent >= 0 || errno != EOPNOTSUPP)
            return sent < 0 ? -errno : 0;
    }
    return sys->connect(fd, address, size) < 0 ? -errno : 0;
}

/* A socket that connects, or one that will try again; false with the reason noted. */
static bool begin_attempt(struct attempts *attempts, size_t index) {
    tram_loop *loop = loop_of(attempts);
    const struct sys *sys = loop->sys;
    const struct candidate *candidate = &attempts->remote->items[index];
    struct attempt *attempt = &attempts->list->items[index];
    int family = address_family(&candidate->address);
    int fd = sys->socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, candidate->protocol);
    if (fd < 0) {
        tram__failures_add_address(&attempts->failures, index, -errno, "socket", &candidate->address);
        return false;
    }
    int on = 1;
    if (attempts->keep_alive)
        sys->setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    int set = tram__tcp_set(sys, fd, &attempts->tcp);
    if (set) {
        tram__failures_add_address(&attempts->failures, index, set, "setsockopt", &candidate->address);
        sys->close(fd);
        return false;
    }
    if (attempts->transparent && tram__socket_set_transparent(sys, fd, family) < 0) {
        tram__failures_add_address(&attempts->failures, index, -errno, "IP_TRANSPARENT", &candidate->address);
        sys->close(fd);
        return false;
    }
    if (attempts->local && !bind_local(attempts, index, fd, family)) {
        sys->close(fd);
        return false;
    }
    int status = connect_socket(attempts, attempt, fd, candidate);
    /* Interrupted or not, the connecting goes on behind the scenes. */
    if (!status || status == -EINPROGRESS || status == -EINTR) {
        attempt->attempts = attempts;
        status = tram__io_add(&attempt->io, loop, &attempt_kind, fd);
        if (!status)
            attempts->active++;
        if (!status && !(status = tram__io_watch(&attempt->io, IO_WRITE)))
            return true;
    }
    sys->close(io_added(&attempt->io) ? attempt_leave(attempt) : fd);
    if (status == -EAGAIN && family == AF_UNIX) {
        status = attempt_later(attempts);
        if (!status)
            return true;
    }
    tram__failures_add_address(&attempts->failures, index, status, "connect", &candidate->address);
    return false;
}

static void stagger_expired(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    start_attempts(container_of(deadline, struct attempts, stagger));
}

/* Starts the next attempt that can be started; if none can and none is under way, all is over. */
static void start_attempts(struct attempts *attempts) {
    tram_loop *loop = loop_of(attempts);
    deadline_cancel(loop, &attempts->stagger);
    while (attempts->started < attempts->list->count) {
        if (!begin_attempt(attempts, attempts->started++))
            continue;
        /* Should memory lack for the timer, the next attempt waits for this one to fail. */
        if (attempts->race && attempts->started < attempts->list->count)
            tram__deadline_start_after(loop, &attempts->stagger, attempts->stagger_ns);
        return;
    }
    if (!attempts->active)
        attempts->failed(attempts);
}

void tram__attempts_init(struct attempts *attempts, tram_future *operation) {
    attempts->operation = operation;
    attempts->failures.allocator = &operation->loop->allocator;
    attempts->stagger.expire = stagger_expired;
}

int tram__attempts_begin(struct attempts *attempts) {
    struct address_list *remote = attempts->remote;
    size_t first_count = attempts->interleave ? (size_t)attempts->interleave : attempts->race;
    int status = first_count ? tram__addresses_interleave(remote, first_count) : 0;
    if (status)
        return status;
    size_t size = sizeof(struct attempt_list) + remote->count * sizeof(struct attempt);
    attempts->list = tram__memory_get_zero(&loop_of(attempts)->allocator, size);
    if (!attempts->list)
        return -ENOMEM;
    attempts->list->count = remote->count;
    start_attempts(attempts);
    return 0;
}
