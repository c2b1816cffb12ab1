/*
 * The sockets of a server of a runtime, as something that comes from elsewhere and may go elsewhere: dealt to the
 * workers, so that each of them is served by somebody, and copied for a process that comes after this one.
 */
#include <errno.h>
#include <fcntl.h>

#include "core/base/invalid.h"
#include "transports/sharded/server.h"
#include "transports/socket/listener.h"

/* ---- Coming ---- */

static int socket_error(struct kept_error *ret_error, int code) {
    ret_error->error = (tram_error){.code = code, .operation = "create_server", .option = option_of(code)};
    return code;
}

/* A stream socket, which is made non-blocking, and its address. */
static int look_at(const struct sys *sys, int fd, tram_socket_address *ret_address) {
    int type = 0;
    socklen_t size = sizeof type;
    if (sys->getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
        return errno == ENOTSOCK ? tram__invalid("sockets") : -errno;
    if (type != SOCK_STREAM)
        return tram__invalid("sockets");
    int flags = sys->fcntl(fd, F_GETFL, 0);
    if (flags < 0 || sys->fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    ret_address->size = sizeof ret_address->address;
    return sys->getsockname(fd, (struct sockaddr *)&ret_address->address, &ret_address->size) < 0 ? -errno : 0;
}

/* How many sockets have the address of the `index`-th, and how many of these come before it. */
static size_t group_of(const struct address_list *list, size_t index, size_t *ret_before) {
    size_t size = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (i == index)
            *ret_before = size;
        size += tram__address_equal(&list->items[i].address, &list->items[index].address);
    }
    return size;
}

/* Fewer sockets than workers have to be shared; and none can be steered to a worker if some have two, or share one. */
static int adjust_sharding(tram_runtime_server *server) {
    tram_server_options *options = &server->options;
    size_t workers = server->shards.runtime->count;
    bool fewer = false, other = false;
    for (size_t i = 0; i < server->addresses.count; i++) {
        size_t before = 0, size = group_of(&server->addresses, i, &before);
        fewer |= size < workers;
        other |= size != workers;
    }
    if (options->steer && other)
        return tram__invalid("steer");
    if (options->shard == TRAM_SHARD_REUSEPORT && fewer)
        options->shard = TRAM_SHARD_SHARED;
    return 0;
}

static int give_to(tram_runtime_server *server, unsigned worker, int fd) {
    int *fds = shard_fds(&server->shards, worker);
    while (*fds >= 0)
        fds++;
    *fds = runtime_sys(server->shards.runtime)->fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return *fds < 0 ? -errno : 0;
}

/* Round and round: the workers to the sockets of an address, or its sockets to the workers. */
static int deal(tram_runtime_server *server, const int *sockets) {
    tram_shard shard = server->options.shard;
    size_t workers = server->shards.runtime->count;
    int status = 0;
    for (size_t i = 0; i < server->addresses.count; i++) {
        size_t before = 0, size = group_of(&server->addresses, i, &before), end = MAX(size, workers);
        if (shard == TRAM_SHARD_HANDOFF || shard == TRAM_SHARD_FIXED)
            status = give_to(server, server->options.shard_worker, sockets[i]);
        else
            for (size_t j = before; !status && j < end; j += size)
                status = give_to(server, (unsigned)(j % workers), sockets[i]);
        if (status)
            return status;
    }
    return 0;
}

int tram__runtime_server_use(tram_runtime_server *server, const int *sockets, size_t count,
                             struct kept_error *ret_error) {
    struct shards *shards = &server->shards;
    const char *by_source = server->limits ? tram__limits_by_source(&server->limits->bounds) : NULL;
    int status = 0;
    for (size_t i = 0; !status && i < count; i++) {
        tram_socket_address address = {0};
        status = look_at(runtime_sys(shards->runtime), sockets[i], &address);
        if (!status && address.address.ss_family == AF_UNIX && by_source)
            status = tram__invalid(by_source); /* it has no sources */
        if (!status)
            status = tram__addresses_add(&server->addresses, &address, 0);
    }
    if (!status)
        status = adjust_sharding(server);
    if (!status)
        status = tram__shards_reserve(shards, count);
    if (status)
        return socket_error(ret_error, status);
    shards->socket_count = count;
    status = deal(server, sockets);
    tram__addresses_unique(&server->addresses);
    return status ? socket_error(ret_error, status) : 0;
}

/* ---- Going ---- */

size_t tram__runtime_server_socket_limit(const tram_runtime_server *server) {
    return server->shards.fds_capacity;
}

/* What tells sockets apart, of which there may be several descriptors. */
static uint64_t cookie_of(const struct sys *sys, int fd) {
    uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    return sys->getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) < 0 ? 0 : cookie;
}

static bool among(const uint64_t *cookies, size_t count, uint64_t cookie) {
    for (size_t i = 0; i < count; i++)
        if (cookie && cookies[i] == cookie)
            return true;
    return false;
}

/* With the lock held: a worker closes nothing before it has said so. */
static ssize_t copy_locked(tram_runtime_server *server, uint64_t *cookies, int *ret_fds) {
    const struct sys *sys = runtime_sys(server->shards.runtime);
    size_t count = 0;
    for (unsigned i = 0; i < server->shards.runtime->count; i++) {
        const struct shard *shard = &server->of_worker[i];
        if (shard->state != SHARD_BOUND && shard->state != SHARD_SERVES)
            continue;
        for (size_t j = 0; j < shard_socket_count(shard); j++) {
            cookies[count] = cookie_of(sys, shard->fds[j]);
            if (among(cookies, count, cookies[count]))
                continue;
            ret_fds[count] = sys->fcntl(shard->fds[j], F_DUPFD_CLOEXEC, 0);
            if (ret_fds[count] < 0) {
                int code = -errno;
                while (count)
                    sys->close(ret_fds[--count]);
                return code;
            }
            count++;
        }
    }
    return (ssize_t)count;
}

ssize_t tram__runtime_server_copy(tram_runtime_server *server, int *ret_fds) {
    struct shards *shards = &server->shards;
    size_t room = shards->fds_capacity * sizeof(uint64_t);
    uint64_t *cookies = memory_get(&shards->runtime->allocator, room);
    if (!cookies)
        return -ENOMEM;
    pthread_mutex_lock(&shards->lock);
    ssize_t count = copy_locked(server, cookies, ret_fds);
    pthread_mutex_unlock(&shards->lock);
    memory_put(&shards->runtime->allocator, cookies, room);
    return count;
}

int tram__runtime_server_give(tram_runtime_server *server) {
    struct shards *shards = &server->shards;
    pthread_mutex_lock(&shards->lock);
    server->given = true;
    server->file = (struct socket_file){0};
    pthread_mutex_unlock(&shards->lock);
    return tram__shards_close(shards);
}
