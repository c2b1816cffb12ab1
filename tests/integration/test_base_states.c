/*
 * Every call of a transport in every state that one can be in, on every kind of carrier, with and without a layer: what
 * it answers, what follows for both ends, which bytes arrive. base_states.txt says what is right; after a change that
 * is meant, `test_base_states --update` writes it anew, and its difference is to be read.
 *
 * A line is a state, calls, on which carriers (+: with a layer), and then five parts: the answer, and how the
 * transport is right behind the call; what comes to both protocols; the same when both read and the transport is
 * written to once more; when the peer closes; and when both are aborted. How the transport is: C it closes, R it reads,
 * r the loop is asked for what comes, w for room, E it could end its stream, q something is queued, k it works.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <tram/unix.h>
#include <unistd.h>

#include "support/datagram.h"
#include "support/layers.h"
#include "support/stream.h"
#include "transports/base/held.h"
#include "transports/base/state.h"
#include "transports/base/transport.h"
#include "transports/datagram/datagram.h"
#include "transports/process/pipe.h"

#define MUCH      15000 /* more than a kernel takes at once of who asks it to take little, less than the high mark */
#define LINE_SIZE 1500

/* ---- The scene ---- */

struct scene {
    struct world *world;
    struct channel channel;
    struct channel other;   /* bridged with it */
    tram_transport *first;  /* of the channel, held */
    tram_transport *second; /* the same */
    struct recorder *a, *b;
    tram_future *future; /* of a file or a bridge; NULL: none */
    int file;            /* that is sent; -1: none */
    size_t written;      /* of the pattern */
    uint64_t dropped;    /* writes, so far */
    bool raw;            /* the peer gets what is not the pattern */
    bool sends;          /* datagrams */
    char *line;          /* what is said */
};

static void say(struct scene *scene, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct scene *scene, const char *format, ...) {
    size_t used = strlen(scene->line);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(scene->line + used, LINE_SIZE - used, format, arguments);
    va_end(arguments);
}

static void say_code(struct scene *scene, int code) {
    if (code > 0)
        say(scene, " %d", code);
    else
        say(scene, " %s", code ? tram_error_name(code) : "0");
}

static void say_state(struct scene *scene) {
    const tram_transport *transport = scene->first;
    say(scene, " ");
    if (!transport->protocol) {
        say(scene, "over");
        return;
    }
    const bool is[] = {
        tram_transport_is_closing(transport),    tram_transport_is_reading(transport),
        transport->io.wanted & IO_READ,          transport->io.wanted & IO_WRITE,
        tram_transport_can_write_eof(transport), tram_transport_get_write_buffer_size(transport) > 0,
        tram_transport_work(transport) > 0,
    };
    for (size_t i = 0; i < sizeof is; i++)
        say(scene, "%c", is[i] ? "CRrwEqk"[i] : '-');
}

/* Words of the trace that are the peer's, or those that are not: in which order both ends hear is the kernel's. */
static void say_words(struct scene *scene, bool of_peer) {
    char words[sizeof scene->world->trace], *rest;
    strcpy(words, scene->world->trace);
    for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        if ((strncmp(word, "b.", 2) == 0) == of_peer)
            say(scene, " %s", word);
}

/* What comes next, until nothing does. */
static void say_rest(struct scene *scene) {
    size_t before = scene->b->received;
    run_to_rest(scene->world);
    say_words(scene, false);
    say_words(scene, true);
    scene->world->trace[0] = '\0';
    if (scene->b->received != before && scene->b->received == scene->written)
        say(scene, " b+all");
    else if (scene->b->received != before)
        say(scene, " b+some");
}

/* ---- States ---- */

enum other { NO_OTHER, WRITER, READER, DATAGRAM };

static const struct way {
    const char *name;
    enum carrier carrier;
    unsigned depth;
    enum other other; /* what is no stream both ways */
} ways[] = {
    {"unix", CARRIER_UNIX, 0, NO_OTHER},      {"unix+", CARRIER_UNIX, 1, NO_OTHER},
    {"pair", CARRIER_PAIR, 0, NO_OTHER},      {"pair+", CARRIER_PAIR, 1, NO_OTHER},
    {"custom", CARRIER_CUSTOM, 0, NO_OTHER},  {"custom+", CARRIER_CUSTOM, 1, NO_OTHER},
    {"writer", CARRIER_COUNT, 0, WRITER},     {"reader", CARRIER_COUNT, 0, READER},
    {"datagram", CARRIER_COUNT, 0, DATAGRAM},
};
#define WAYS (sizeof ways / sizeof *ways)

static tram_transport *pipe_end(struct scene *scene, enum pipe_side side, int fd, struct recorder *recorder) {
    tram_transport *transport;
    assert_int_equal(tram__pipe_new(scene->world->loop, side, fd, &recorder->base, NULL, &transport), 0);
    return transport;
}

static tram_transport *datagram_end(struct scene *scene, int fd, struct recorder *recorder) {
    const struct datagram_setup setup = {.connected = true};
    tram_transport *transport;
    assert_int_equal(tram__datagram_new(scene->world->loop, fd, &recorder->base, &setup, &transport), 0);
    return transport;
}

/* As channel_open_bare(). */
static void open_other(struct scene *scene, enum other other) {
    struct recorder *a = recorder_new(scene->world, "a"), *b = recorder_new(scene->world, "b");
    struct channel *channel = &scene->channel;
    int fds[2];
    *channel = (struct channel){.world = scene->world, .carrier = CARRIER_COUNT, .a = a, .b = b};
    b->keep = true;
    assert_int_equal(transport_state_open(scene->world->loop), 0);
    if (other == DATAGRAM) {
        unix_datagram_pair(fds);
        channel->first = datagram_end(scene, fds[0], a);
        channel->second = datagram_end(scene, fds[1], b);
    } else {
        assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
        bool reads = other == READER;
        channel->first = pipe_end(scene, reads ? PIPE_READ : PIPE_WRITE, fds[!reads], a);
        channel->second = pipe_end(scene, reads ? PIPE_WRITE : PIPE_READ, fds[reads], b);
    }
}

static void hold(struct scene *scene) {
    scene->a = scene->channel.a;
    scene->b = scene->channel.b;
    scene->first = tram_transport_hold(scene->channel.first);
    scene->second = tram_transport_hold(scene->channel.second);
    scene->b->quiet_data = true;
}

/* A state is reached, or is none of this carrier. */
typedef bool reach(struct scene *scene, const struct way *way);

static bool beginning(struct scene *scene, const struct way *way) {
    if (way->other)
        open_other(scene, way->other);
    else
        channel_begin(&scene->channel, scene->world, way->carrier, way->depth);
    hold(scene);
    scene->sends = way->other == DATAGRAM;
    return true;
}

static bool open_now(struct scene *scene, const struct way *way) {
    beginning(scene, way);
    run_until(scene->world, &scene->a->made);
    run_until(scene->world, &scene->b->made);
    run_to_rest(scene->world);
    return true;
}

/* What counts as written, unless it was dropped. */
static int wrote(struct scene *scene, int status, size_t size) {
    tram_stats stats;
    tram_loop_stats(scene->world->loop, &stats);
    if (!status && stats.dropped_writes == scene->dropped)
        scene->written += size;
    scene->dropped = stats.dropped_writes;
    return status;
}

/* A datagram. */
static int send_some(struct scene *scene, size_t size) {
    char bytes[1000];
    pattern(bytes, size, scene->written);
    return wrote(scene, tram_transport_sendto(scene->first, bytes, size, NULL), size);
}

static int write_some(struct scene *scene, size_t size) {
    int status = 0;
    if (!scene->sends)
        status = wrote(scene, write_pattern(scene->first, size, scene->written), size);
    for (size_t part; scene->sends && size && !status; size -= part) {
        part = size < 1000 ? size : 1000;
        status = send_some(scene, part);
    }
    return status;
}

static bool paused(struct scene *scene, const struct way *way) {
    open_now(scene, way);
    return tram_transport_pause_reading(scene->first) == 0;
}

static bool corked(struct scene *scene, const struct way *way) {
    open_now(scene, way);
    return tram_transport_cork(scene->first) == 0 && write_some(scene, 7) == 0;
}

/* The peer does not read, where it may, and the kernel takes little. */
static void stop_peer(struct scene *scene) {
    if (scene->channel.carrier == CARRIER_UNIX)
        assert_int_equal(setsockopt(scene->first->io.fd, SOL_SOCKET, SO_SNDBUF, &(int){1}, sizeof(int)), 0);
    else if (scene->first->io.fd >= 0 && !scene->sends)
        fcntl(scene->first->io.fd, F_SETPIPE_SZ, 4096);
    tram_transport_pause_reading(scene->second);
}

static bool queued(struct scene *scene, const struct way *way) {
    open_now(scene, way);
    stop_peer(scene);
    return write_some(scene, MUCH) == 0;
}

static bool over_the_mark(struct scene *scene, const struct way *way) {
    open_now(scene, way);
    stop_peer(scene);
    return tram_transport_set_write_buffer_limits(scene->first, 1000, 500) == 0 && write_some(scene, MUCH) == 0;
}

static bool ended(struct scene *scene, const struct way *way) {
    open_now(scene, way);
    scene->b->eof_returns = 1;
    return tram_transport_write_eof(scene->first) == 0;
}

static bool ending(struct scene *scene, const struct way *way) {
    queued(scene, way);
    scene->b->eof_returns = 1;
    return tram_transport_write_eof(scene->first) == 0;
}

/* The peer's stream has ended. */
static bool half(struct scene *scene, const struct way *way) {
    open_now(scene, way);
    scene->a->eof_returns = 1;
    tram_transport_write_eof(scene->second);
    run_to_rest(scene->world);
    return true;
}

static bool closing(struct scene *scene, const struct way *way) {
    queued(scene, way);
    return tram_transport_close(scene->first) == 0;
}

/* Layers say goodbye, and the peer does not answer. */
static bool shutting_down(struct scene *scene, const struct way *way) {
    if (!way->depth)
        return false;
    open_now(scene, way);
    stop_peer(scene);
    return tram_transport_close(scene->first) == 0;
}

static bool aborted(struct scene *scene, const struct way *way) {
    queued(scene, way);
    return tram_transport_abort(scene->first) == 0;
}

static bool lost(struct scene *scene, const struct way *way) {
    aborted(scene, way);
    run_to_rest(scene->world);
    return true;
}

/* A layer for a peer that has none. */
static int push_layer(struct scene *scene) {
    struct codec *codec = codec_new(scene->world, &codec_kind, &scene->channel.live);
    codec->layer.start_timeout_ns = codec->layer.shutdown_timeout_ns = HOUR_NS;
    scene->raw = true;
    int status = tram__transport_push_layer(scene->first, &codec->layer, NULL, 0);
    if (status)
        codec->layer.kind->free(&codec->layer);
    return status;
}

static bool starting(struct scene *scene, const struct way *way) {
    open_now(scene, way);
    if (push_layer(scene))
        return false;
    run_to_rest(scene->world);
    return true;
}

/* The same before connection_made. */
static bool held_back(struct scene *scene, const struct way *way) {
    beginning(scene, way);
    if (push_layer(scene))
        return false;
    run_to_rest(scene->world);
    return true;
}

/* The layers have removed themselves. */
static bool come_down(struct scene *scene, const struct way *way) {
    if (!way->depth)
        return false;
    beginning(scene, way);
    scene->channel.first_codec->leaves = scene->channel.second_codec->leaves = true;
    run_until(scene->world, &scene->a->made);
    run_until(scene->world, &scene->b->made);
    run_to_rest(scene->world);
    return true;
}

static int file_of(struct scene *scene, size_t size) {
    char *bytes = malloc(size);
    int file = memfd_create("states", MFD_CLOEXEC);
    pattern(bytes, size, scene->written);
    assert_int_equal(write(file, bytes, size), size);
    free(bytes);
    return file;
}

/* Where the kernel does it: else threads read the file, who take their time. */
static int send_file(struct scene *scene, size_t size) {
    if (tram_transport_sendfile_mode(scene->first) == TRAM_SENDFILE_FALLBACK)
        return 1;
    if (scene->file < 0)
        scene->file = file_of(scene, size);
    int status = tram_loop_sendfile(scene->world->loop, scene->first, scene->file, 0, (int64_t)size, NULL,
                                    scene->future ? NULL : &scene->future);
    return wrote(scene, status, size);
}

static bool sending_a_file(struct scene *scene, const struct way *way) {
    open_now(scene, way);
    stop_peer(scene);
    if (send_file(scene, 20 * MUCH))
        return false;
    run_to_rest(scene->world);
    return true;
}

static bool bridged(struct scene *scene, const struct way *way) {
    open_now(scene, way);
    struct recorder *c = recorder_new(scene->world, "c"), *d = recorder_new(scene->world, "d");
    channel_open_bare(&scene->other, scene->world, CARRIER_UNIX, c, d);
    run_to_rest(scene->world);
    if (tram_bridge(scene->first, scene->other.first, NULL, &scene->future))
        return false;
    run_to_rest(scene->world);
    return true;
}

static bool lingering(struct scene *scene, const struct way *way) {
    open_now(scene, way);
    scene->b->eof_returns = 1;
    if (tram_transport_close_lingering(scene->first, HOUR_NS))
        return false;
    run_to_rest(scene->world);
    return !scene->a->lost;
}

/* A send failed, and what the peer had said before is heard. */
static bool hearing_out(struct scene *scene, const struct way *way) {
    if (way->carrier != CARRIER_UNIX)
        return false;
    open_now(scene, way);
    tram_transport_write(scene->second, "xyz", 3);
    fail_next(&faults.send, EPIPE, 1);
    return tram_transport_write(scene->first, "lost", 4) == 0;
}

static bool holding(struct scene *scene, const struct way *way) {
    if (way->depth || way->other)
        return false;
    open_now(scene, way);
    assert_int_equal(tram_transport_pause_reading(scene->first), 0);
    assert_int_equal(tram__transport_need_more(scene->first), 0);
    tram__transport_give_held(scene->first, tram__held_new(scene->world->loop, "held", 4), false);
    return true;
}

/* The layer asked the peer something, which does not read. */
static bool keeping(struct scene *scene, const struct way *way) {
    if (!way->depth)
        return false;
    open_now(scene, way);
    stop_peer(scene);
    return write_some(scene, CODEC_ASKS_AFTER) == 0 && write_some(scene, 100) == 0;
}

static bool working(struct scene *scene, const struct way *way) {
    open_now(scene, way);
    assert_int_equal(tram_transport_begin_work(scene->first), 0);
    tram__transport_ask_end(scene->first);
    run_to_rest(scene->world);
    return true;
}

static int on_closing(tram_protocol *protocol, uint64_t end_ns) {
    trace(((struct recorder *)protocol)->world, "a.closing:%d", end_ns == TRAM_FOREVER);
    return 0;
}

static bool told(struct scene *scene, const struct way *way) {
    static tram_protocol_ops ops;
    open_now(scene, way);
    ops = *scene->a->base.ops;
    ops.closing = on_closing;
    scene->a->base.ops = &ops;
    tram__transport_ask_end(scene->first);
    run_to_rest(scene->world);
    return true;
}

#define STATES(EACH)                                                                                                   \
    EACH(beginning)                                                                                                    \
    EACH(held_back)                                                                                                    \
    EACH(open_now)                                                                                                     \
    EACH(paused)                                                                                                       \
    EACH(holding)                                                                                                      \
    EACH(corked)                                                                                                       \
    EACH(queued)                                                                                                       \
    EACH(over_the_mark)                                                                                                \
    EACH(keeping)                                                                                                      \
    EACH(starting)                                                                                                     \
    EACH(come_down)                                                                                                    \
    EACH(sending_a_file)                                                                                               \
    EACH(bridged)                                                                                                      \
    EACH(ending)                                                                                                       \
    EACH(ended)                                                                                                        \
    EACH(half)                                                                                                         \
    EACH(working)                                                                                                      \
    EACH(told)                                                                                                         \
    EACH(hearing_out)                                                                                                  \
    EACH(closing)                                                                                                      \
    EACH(shutting_down)                                                                                                \
    EACH(lingering)                                                                                                    \
    EACH(aborted)                                                                                                      \
    EACH(lost)

struct state {
    const char *name;
    reach *reach;
};

/* ---- Calls ---- */

static int nothing(struct scene *scene) {
    (void)scene;
    return 0;
}

static int close_it(struct scene *scene) {
    return tram_transport_close(scene->first);
}

static int close_lingering(struct scene *scene) {
    return tram_transport_close_lingering(scene->first, HOUR_NS);
}

static int abort_it(struct scene *scene) {
    return tram_transport_abort(scene->first);
}

static int reset(struct scene *scene) {
    return tram_transport_reset(scene->first);
}

static int abort_with_error(struct scene *scene) {
    return tram_transport_abort_with_error(scene->first, &(tram_error){.code = -EPROTO, .operation = "test"});
}

static int begin_work(struct scene *scene) {
    return tram_transport_begin_work(scene->first);
}

static int end_work(struct scene *scene) {
    return tram_transport_end_work(scene->first);
}

static int pause_reading(struct scene *scene) {
    return tram_transport_pause_reading(scene->first);
}

static int resume_reading(struct scene *scene) {
    return tram_transport_resume_reading(scene->first);
}

static int write_five(struct scene *scene) {
    return wrote(scene, write_pattern(scene->first, 5, scene->written), 5);
}

static int send_five(struct scene *scene) {
    return send_some(scene, 5);
}

static int write_lines(struct scene *scene) {
    char bytes[5];
    pattern(bytes, 5, scene->written);
    struct iovec pieces[] = {{bytes, 2}, {NULL, 0}, {bytes + 2, 3}};
    return wrote(scene, tram_transport_writelines(scene->first, pieces, 3), 5);
}

static int write_buffer(struct scene *scene) {
    char bytes[5];
    pattern(bytes, 5, scene->written);
    tram_buffer *buffer = tram_buffer_copy(bytes, 5);
    int status = tram_transport_write_buffer(scene->first, buffer);
    tram_buffer_release(buffer);
    return wrote(scene, status, 5);
}

static int cork(struct scene *scene) {
    return tram_transport_cork(scene->first);
}

static int uncork(struct scene *scene) {
    return tram_transport_uncork(scene->first);
}

static int write_eof(struct scene *scene) {
    scene->b->eof_returns = 1;
    return tram_transport_write_eof(scene->first);
}

static int low_marks(struct scene *scene) {
    return tram_transport_set_write_buffer_limits(scene->first, 10, 5);
}

static int high_marks(struct scene *scene) {
    return tram_transport_set_write_buffer_limits(scene->first, (size_t)1 << 30, (size_t)1 << 20);
}

static int hard_limit(struct scene *scene) {
    return tram_transport_set_write_hard_limit(scene->first, 1);
}

static int never_called(tram_transport *transport, void *arg) {
    (void)transport;
    fail_msg("%s", (const char *)arg);
    return 0;
}

static int call_later(struct scene *scene) {
    return tram_transport_call_later(scene->first, HOUR_NS, never_called, (void *)(uintptr_t) "an hour is over");
}

static int new_protocol(struct scene *scene) {
    return tram_transport_set_protocol(scene->first, &recorder_new(scene->world, "n")->base);
}

static int same_protocol(struct scene *scene) {
    tram_protocol *protocol = tram_transport_get_protocol(scene->first);
    return protocol ? tram_transport_set_protocol(scene->first, protocol) : 1;
}

static int sendfile_of_ten(struct scene *scene) {
    return send_file(scene, 10);
}

static int bridge(struct scene *scene) {
    if (scene->other.world)
        return 1;
    struct recorder *c = recorder_new(scene->world, "c"), *d = recorder_new(scene->world, "d");
    channel_open_bare(&scene->other, scene->world, CARRIER_PAIR, c, d);
    return tram_bridge(scene->first, scene->other.first, NULL, scene->future ? NULL : &scene->future);
}

static int detach_it(struct scene *scene) {
    tram_detached *detached = NULL;
    int status = tram_transport_detach(scene->first, &detached);
    if (!status)
        tram_detached_free(detached);
    return status;
}

static int send_fds(struct scene *scene) {
    char bytes[5];
    int fd = file_of(scene, 1);
    pattern(bytes, 5, scene->written);
    int status = tram_transport_send_fds(scene->first, bytes, 5, &fd, 1);
    close(fd);
    return wrote(scene, status, 5);
}

/* One release too many. */
static int release(struct scene *scene) {
    tram_transport *transport = scene->first;
    if (!transport->protocol)
        return 0;
    tram_transport_release(transport);
    tram_transport_release(transport);
    tram_transport_hold(transport);
    return 0;
}

static int ask_end(struct scene *scene) {
    if (scene->first->protocol)
        tram__transport_ask_end(scene->first);
    return 0;
}

static int end_of(struct scene *scene, enum shutdown_mode mode) {
    if (scene->first->protocol)
        scene->first->io.kind->ending(&scene->first->io, mode);
    return 0;
}

static int server_stops(struct scene *scene) {
    return end_of(scene, IO_SHUTDOWN_STOP);
}

static int server_drains(struct scene *scene) {
    return end_of(scene, IO_SHUTDOWN_DRAIN);
}

static int expire(struct scene *scene) {
    if (scene->first->protocol)
        tram__transport_expire(scene->first);
    return 0;
}

static int cut(struct scene *scene) {
    tram__transport_cut(scene->first, END_STOP, "test");
    return 0;
}

static int fail_it(struct scene *scene) {
    tram__transport_fatal(scene->first, -EIO, "test", NULL);
    return 0;
}

static int close_loop(struct scene *scene) {
    return tram_loop_close(scene->world->loop);
}

static int peer_writes(struct scene *scene) {
    return scene->sends ? tram_transport_sendto(scene->second, "xyz", 3, NULL)
                        : tram_transport_write(scene->second, "xyz", 3);
}

static int peer_ends(struct scene *scene) {
    return tram_transport_write_eof(scene->second);
}

static int peer_closes(struct scene *scene) {
    return tram_transport_close(scene->second);
}

static int peer_aborts(struct scene *scene) {
    return tram_transport_abort(scene->second);
}

#define CALL(function)                                                                                                 \
    { #function, function }
static const struct call {
    const char *name;
    int (*function)(struct scene *scene);
} calls[] = {
    CALL(nothing),
    CALL(close_it),
    CALL(close_lingering),
    CALL(abort_it),
    CALL(reset),
    CALL(abort_with_error),
    CALL(begin_work),
    CALL(end_work),
    CALL(pause_reading),
    CALL(resume_reading),
    CALL(write_five),
    CALL(send_five),
    CALL(write_lines),
    CALL(write_buffer),
    CALL(cork),
    CALL(uncork),
    CALL(write_eof),
    CALL(low_marks),
    CALL(high_marks),
    CALL(hard_limit),
    CALL(call_later),
    CALL(new_protocol),
    CALL(same_protocol),
    CALL(sendfile_of_ten),
    CALL(bridge),
    CALL(push_layer),
    CALL(detach_it),
    CALL(send_fds),
    CALL(release),
    CALL(ask_end),
    CALL(expire),
    CALL(server_stops),
    CALL(server_drains),
    CALL(cut),
    CALL(fail_it),
    CALL(close_loop),
    CALL(peer_writes),
    CALL(peer_ends),
    CALL(peer_closes),
    CALL(peer_aborts),
};
#define CALLS (sizeof calls / sizeof *calls)

/* ---- One of them in one of these ---- */

static void say_future(struct scene *scene) {
    if (!scene->future)
        return;
    if (!tram_future_done(scene->future))
        tram_future_cancel(scene->future);
    run_to_rest(scene->world);
    say(scene, " future:%s", tram_error_name(tram_future_result(scene->future, NULL)));
    tram_future_release(scene->future);
}

static void say_counts(struct scene *scene, const tram_stats *before) {
    tram_stats stats;
    struct world *world = scene->world;
    tram_loop_stats(world->loop, &stats);
    const struct {
        const char *name;
        uint64_t count;
    } counts[] = {
        {"dropped", stats.dropped_writes - before->dropped_writes},
        {"grace", stats.expired_grace - before->expired_grace},
        {"limit", stats.over_write_limit - before->over_write_limit},
        {"open", stats.connections_now - before->connections_now},
        {"reports", world->exceptions},
        {"warnings", world->warnings},
        {"errors", world->errors},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].count)
            say(scene, " %s:%d", counts[i].name, (int)counts[i].count);
}

static void go_on(struct scene *scene) {
    say_rest(scene);
    say_state(scene);
    say(scene, " |");
    say_code(scene, tram_transport_resume_reading(scene->first));
    tram_transport_resume_reading(scene->second);
    say_code(scene, write_some(scene, 5));
    say_rest(scene);
    say_state(scene);
    say(scene, " |");
    tram_transport_close(scene->second);
    say_rest(scene);
    say(scene, " |");
}

/* Both are lost then, and what lives longer than they do is given back. */
static void end(struct scene *scene) {
    bool closed = tram_loop_is_closed(scene->world->loop);
    if (!scene->first)
        return;
    if (!closed) {
        tram_transport_abort(scene->first);
        tram_transport_abort(scene->second);
        for (size_t i = 0; scene->other.world && i < 2; i++) {
            const struct recorder *recorder = i ? scene->other.b : scene->other.a;
            if (recorder->base.transport)
                tram_transport_abort(recorder->base.transport);
        }
        say_rest(scene);
        say_future(scene);
        while (tram_transport_work(scene->first))
            assert_int_equal(tram_transport_end_work(scene->first), 0);
    } else if (scene->future) {
        tram_future_release(scene->future);
    }
    tram_transport_release(scene->first);
    tram_transport_release(scene->second);
    if (!closed)
        run_ticks(scene->world, 1);
}

static bool has_pattern(const struct recorder *recorder) {
    static char right[sizeof recorder->bytes];
    if (!right[1])
        pattern(right, sizeof right, 0);
    return memcmp(recorder->bytes, right, recorder->kept) == 0;
}

/* False: it is no state of that carrier. */
static bool play(struct world *world, const struct state *state, const struct way *way, const struct call *call,
                 char *line) {
    struct scene scene = {.world = world, .line = line, .file = -1};
    tram_stats before;
    faults_sys();
    tram_loop_stats(world->loop, &before);
    scene.dropped = before.dropped_writes;
    world->exceptions = world->warnings = world->errors = 0;
    world->log[0] = world->trace[0] = line[0] = '\0';
    bool reached = state->reach(&scene, way);
    world->trace[0] = '\0';
    if (reached)
        say_code(&scene, call->function(&scene));
    if (tram_loop_is_closed(world->loop)) {
        say_words(&scene, false);
        say_words(&scene, true);
    } else if (reached) {
        say_state(&scene);
        say(&scene, " |");
        go_on(&scene);
    }
    end(&scene);
    say_counts(&scene, &before);
    if (tram_loop_is_closed(world->loop))
        world_use_sys(world, faults_sys());
    if (scene.file >= 0)
        close(scene.file);
    if (reached && !scene.raw && !has_pattern(scene.b))
        fail_msg("%s %s, %s: bytes are wrong", state->name, call->name, way->name);
    world_forget_recorders(world);
    if (scene.channel.live || scene.channel.below)
        fail_msg("%s %s, %s: %u layers and %u of the carrier are left", state->name, call->name, way->name,
                 scene.channel.live, scene.channel.below);
    return reached;
}

/* ---- The table ---- */

static char *table[4000]; /* lines of base_states.txt */
static size_t table_size;
static FILE *anew; /* … to be written; NULL: to be read */

static void add(char **text, const char *more) {
    size_t size = *text ? strlen(*text) : 0;
    *text = realloc(*text, size + strlen(more) + 1);
    strcpy(*text + size, more);
}

/* Calls after which the same follows on the same carriers. */
struct row {
    char *calls;
    char carriers[80];
    char said[LINE_SIZE];
};

static void add_row(struct row *rows, size_t *count, const char *call, const char *carriers, const char *said) {
    struct row *row = rows;
    while (row < rows + *count && (strcmp(row->said, said) != 0 || strcmp(row->carriers, carriers) != 0))
        row++;
    if (row == rows + *count) {
        *row = (struct row){.calls = NULL};
        strcpy(row->carriers, carriers);
        strcpy(row->said, said);
        ++*count;
    }
    add(&row->calls, " ");
    add(&row->calls, call);
}

static void add_call(struct row *rows, size_t *count, struct world *world, const struct state *state,
                     const struct call *call) {
    static char said[WAYS][LINE_SIZE];
    bool reached[WAYS];
    for (size_t i = 0; i < WAYS; i++)
        reached[i] = play(world, state, &ways[i], call, said[i]);
    for (size_t i = 0; i < WAYS; i++) {
        char carriers[80] = "";
        if (!reached[i])
            continue;
        for (size_t j = i; j < WAYS; j++)
            if (reached[j] && strcmp(said[i], said[j]) == 0) {
                snprintf(carriers + strlen(carriers), sizeof carriers - strlen(carriers), " %s", ways[j].name);
                reached[j] = false;
            }
        add_row(rows, count, call->name, carriers, said[i]);
    }
}

static char *lines_of(struct world *world, const struct state *state) {
    static struct row rows[CALLS * WAYS];
    char *text = NULL;
    size_t count = 0;
    for (size_t i = 0; i < CALLS; i++)
        add_call(rows, &count, world, state, &calls[i]);
    for (size_t i = 0; i < count; i++) {
        add(&text, state->name), add(&text, rows[i].calls), add(&text, ":");
        add(&text, rows[i].carriers), add(&text, ":"), add(&text, rows[i].said), add(&text, "\n");
        free(rows[i].calls);
    }
    return text;
}

static const char *path_of_table(void) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/tests/integration/base_states.txt", getenv("TRAM_SOURCE_DIR"));
    return path;
}

/* Whether a part of a line, up to a colon, has the word. */
static bool has_word(const char *words, const char *word) {
    size_t size = strlen(word);
    for (const char *end = words + strcspn(words, ":"); words < end; words += strcspn(words, " :")) {
        words += *words == ' ';
        if (strncmp(words, word, size) == 0 && strchr(" :", words[size]))
            return true;
    }
    return false;
}

/* What the table says of it; NULL: nothing. */
static const char *right_of(const struct state *state, const struct call *call, const struct way *way) {
    size_t size = strlen(state->name);
    for (size_t i = 0; i < table_size; i++) {
        const char *line = table[i];
        if (strncmp(line, state->name, size) != 0 || line[size] != ' ')
            continue;
        const char *carriers = strchr(line, ':') + 1;
        if (has_word(line + size, call->name) && has_word(carriers, way->name))
            return strchr(carriers, ':') + 1;
    }
    return NULL;
}

static bool is_right(struct world *world, const struct state *state, const struct call *call, const struct way *way) {
    static char said[LINE_SIZE];
    bool reached = play(world, state, way, call, said);
    const char *right = right_of(state, call, way);
    if (reached ? right && strcmp(said, right) == 0 : !right)
        return true;
    print_error("%s %s, %s\n  is       %s\n  shall be %s\n", state->name, call->name, way->name, reached ? said : "-",
                right ? right : "-");
    return false;
}

/* A sanitizer's build plays some of it, which is slow there and says the same. */
#if defined(TRAM_ASAN) || defined(TRAM_TSAN)
#define STEP 4
#else
#define STEP 1
#endif

static void check(void **world, const struct state *state) {
    unsigned wrong = 0;
    calls_uninterrupted();
    if (anew) {
        char *text = lines_of(*world, state);
        fputs(text, anew);
        free(text);
        return;
    }
    for (size_t i = 0; i < CALLS; i++)
        for (size_t j = i % STEP; j < WAYS; j += STEP)
            wrong += !is_right(*world, state, &calls[i], &ways[j]);
    assert_int_equal(wrong, 0);
}

static void read_table(void) {
    FILE *file = fopen(path_of_table(), "r");
    static char line[LINE_SIZE + 1000];
    while (file && table_size < sizeof table / sizeof *table && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        table[table_size++] = strdup(line);
    }
    if (!table_size)
        exit(fprintf(stderr, "%s cannot be read\n", path_of_table()));
    fclose(file);
}

#define TEST_OF(name)                                                                                                  \
    static void test_##name(void **world) {                                                                            \
        check(world, &(struct state){#name, name});                                                                    \
    }
STATES(TEST_OF)

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup_faults, world_teardown),

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {STATES(TEST)};
    if (argc == 2 && strcmp(argv[1], "--update") == 0) {
        anew = fopen(path_of_table(), "w");
        fputs("Made by test_base_states.c, which says what this is.\n", anew);
    } else {
        read_table();
    }
    int failed = cmocka_run_group_tests_name("states", tests, NULL, NULL);
    if (anew)
        fclose(anew);
    return failed;
}
