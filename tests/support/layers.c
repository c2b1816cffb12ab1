#include "support/layers.h"

#include <sys/socket.h>

#include "support/stream.h"

enum frame { FRAME_HELLO = 1, FRAME_DATA, FRAME_QUESTION, FRAME_ANSWER, FRAME_END, FRAME_GOODBYE };

#define HEADER  3
#define PAYLOAD 700 /* of a frame, at most */

static struct codec *codec_of(const struct layer *layer) {
    return (struct codec *)(uintptr_t)layer;
}

static void kept_add(struct kept *kept, const void *data, size_t size) {
    if (!size)
        return;
    if (kept->size + size > kept->capacity) {
        kept->capacity = 2 * (kept->size + size);
        kept->bytes = realloc(kept->bytes, kept->capacity);
        assert_non_null(kept->bytes);
    }
    memcpy(kept->bytes + kept->size, data, size);
    kept->size += size;
}

/* ---- Writing ---- */

static void write_frame(struct codec *codec, enum frame type, const char *data, size_t size, bool more) {
    char turned[PAYLOAD];
    unsigned char header[HEADER] = {(unsigned char)type, (unsigned char)(size >> 8), (unsigned char)size};
    for (size_t i = 0; i < size; i++)
        turned[i] = (char)(data[i] ^ 0x5a);
    struct iovec pieces[] = {{.iov_base = header, .iov_len = HEADER}, {.iov_base = turned, .iov_len = size}};
    tram__layer_write(&codec->layer, pieces, size ? 2 : 1, more);
}

static void write_data(struct codec *codec, const char *data, size_t size) {
    for (size_t part; size; data += part, size -= part) {
        part = size < PAYLOAD ? size : PAYLOAD;
        write_frame(codec, FRAME_DATA, data, part, part < size);
        codec->since_question += part;
    }
}

static void keep(struct codec *codec, const char *data, size_t size) {
    kept_add(&codec->kept, data, size);
    tram__layer_keep(&codec->layer, codec->kept.size);
}

static void codec_write(struct layer *layer, const struct iovec *pieces, size_t count) {
    struct codec *codec = codec_of(layer);
    for (size_t i = 0; i < count; i++) {
        if (codec->waits_for_answer) {
            keep(codec, pieces[i].iov_base, pieces[i].iov_len);
            continue;
        }
        write_data(codec, pieces[i].iov_base, pieces[i].iov_len);
        if (codec->since_question >= CODEC_ASKS_AFTER && !codec->ended && !codec->never_asks) {
            codec->waits_for_answer = true;
            write_frame(codec, FRAME_QUESTION, NULL, 0, false);
        }
    }
}

/* The answer has come. */
static void let_go(struct codec *codec) {
    struct kept kept = codec->kept;
    codec->waits_for_answer = false;
    codec->since_question = 0;
    codec->kept = (struct kept){0};
    write_data(codec, kept.bytes, kept.size);
    tram__layer_keep(&codec->layer, 0);
    free(kept.bytes);
}

/* ---- Reading ---- */

/* 1: a frame begins at in_start; else as tram__layer_read(). */
static ssize_t next_header(struct codec *codec) {
    while (codec->in_end - codec->in_start < HEADER) {
        memmove(codec->in, codec->in + codec->in_start, codec->in_end - codec->in_start);
        codec->in_end -= codec->in_start;
        codec->in_start = 0;
        ssize_t got = tram__layer_read(&codec->layer, codec->in + codec->in_end, sizeof codec->in - codec->in_end);
        if (got <= 0)
            return got;
        codec->in_end += (size_t)got;
    }
    return 1;
}

/* The type of the next frame that is not an answer or a question, which are dealt with; else as next_header(). */
static ssize_t next_frame(struct codec *codec) {
    for (;;) {
        ssize_t status = next_header(codec);
        if (status <= 0)
            return status;
        const unsigned char *header = (const unsigned char *)codec->in + codec->in_start;
        size_t size = (size_t)header[1] << 8 | header[2];
        if (header[0] < FRAME_HELLO || header[0] > FRAME_GOODBYE || size > PAYLOAD)
            return -EPROTO;
        codec->in_start += HEADER;
        if (header[0] == FRAME_QUESTION)
            write_frame(codec, FRAME_ANSWER, NULL, 0, false);
        else if (header[0] == FRAME_ANSWER)
            let_go(codec);
        else {
            codec->payload = size;
            return header[0];
        }
    }
}

static ssize_t take_payload(struct codec *codec, char *memory, size_t size) {
    if (codec->in_start == codec->in_end) {
        codec->in_start = codec->in_end = 0;
        ssize_t got = tram__layer_read(&codec->layer, codec->in, sizeof codec->in);
        if (got <= 0)
            return got;
        codec->in_end = (size_t)got;
    }
    size_t part = codec->in_end - codec->in_start;
    part = part < codec->payload ? part : codec->payload;
    part = part < size ? part : size;
    for (size_t i = 0; i < part; i++)
        memory[i] = (char)(codec->in[codec->in_start + i] ^ 0x5a);
    codec->in_start += part;
    codec->payload -= part;
    return (ssize_t)part;
}

static ssize_t codec_read(struct layer *layer, void *memory, size_t size) {
    struct codec *codec = codec_of(layer);
    while (!codec->ended) {
        if (codec->payload) {
            ssize_t got = take_payload(codec, memory, size);
            if (got)
                return got;
            codec->unclean = codec->ended = true;
            break;
        }
        ssize_t frame = next_frame(codec);
        if (frame < 0)
            return frame;
        codec->unclean = !frame;
        codec->ended = !frame || frame == FRAME_END || frame == FRAME_GOODBYE;
    }
    return 0;
}

/* ---- Beginning and ending ---- */

static int codec_start(struct layer *layer) {
    struct codec *codec = codec_of(layer);
    for (;;) {
        if (codec->hellos_sent <= codec->hellos_seen && codec->hellos_sent < 3) {
            codec->hellos_sent++;
            write_frame(codec, FRAME_HELLO, NULL, 0, false);
        }
        if (codec->fail_start && codec->hellos_seen >= codec->fail_start) {
            tram__layer_fail(layer, -EPROTO, "hello", "the test wants it so");
            return -EPROTO;
        }
        if (codec->hellos_seen == 3)
            break;
        ssize_t frame = next_frame(codec);
        if (frame < 0)
            return (int)frame;
        if (frame != FRAME_HELLO)
            return frame ? -EPROTO : -ECONNRESET;
        codec->hellos_seen++;
    }
    if (!codec->leaves)
        return 0;
    return tram__layer_remove(layer, codec->in + codec->in_start, codec->in_end - codec->in_start);
}

static void say(struct codec *codec, enum frame frame) {
    if (codec->said_goodbye)
        return;
    codec->said_goodbye = true;
    if (codec->kept.size) /* the peer will not answer any more, or its answer will not be read */
        let_go(codec);
    write_frame(codec, frame, NULL, 0, false);
}

static bool codec_write_eof(struct layer *layer) {
    say(codec_of(layer), FRAME_END);
    return false;
}

static int codec_shutdown(struct layer *layer) {
    struct codec *codec = codec_of(layer);
    char dropped[512];
    ssize_t got = 1;
    say(codec, FRAME_GOODBYE);
    while (!codec->ended && !codec->ignores_goodbyes && got > 0)
        got = codec_read(layer, dropped, sizeof dropped);
    return codec->ignores_goodbyes ? -EAGAIN : got < 0 ? (int)got : 0;
}

static void codec_started(struct layer *layer, const tram_error *error) {
    struct codec *codec = codec_of(layer);
    codec->started++;
    codec->started_code = error ? error->code : 0;
    snprintf(codec->started_text, sizeof codec->started_text, "%s", error && error->detail ? error->detail : "");
}

static const void *codec_extra_info(struct layer *layer, const char *name) {
    return strcmp(name, "codec") == 0 ? layer : NULL;
}

static int codec_leave(struct layer *layer) {
    struct codec *codec = codec_of(layer);
    codec->left += !codec->refuses;
    return codec->refuses;
}

static int codec_arrive(struct layer *layer) {
    struct codec *codec = codec_of(layer);
    codec->arrived += !codec->lands_with;
    return codec->lands_with;
}

static void codec_free(struct layer *layer) {
    struct codec *codec = codec_of(layer);
    if (codec->live)
        --*codec->live;
    free(codec->kept.bytes);
    free(codec);
}

#define CODEC_KIND(eof, gone, there)                                                                                   \
    {                                                                                                                  \
        .name = "codec", .start = codec_start, .read = codec_read, .write = codec_write, .write_eof = eof,             \
        .shutdown = codec_shutdown, .started = codec_started, .extra_info = codec_extra_info, .free = codec_free,      \
        .leave = gone, .arrive = there, .start_timeout_code = -ECONNABORTED,                                           \
    }

const struct layer_kind codec_kind = CODEC_KIND(codec_write_eof, codec_leave, codec_arrive);
const struct layer_kind codec_whole_kind = CODEC_KIND(NULL, NULL, NULL);

struct codec *codec_new(struct world *world, const struct layer_kind *kind, unsigned *live) {
    struct codec *codec = calloc(1, sizeof *codec);
    assert_non_null(codec);
    codec->layer.kind = kind;
    codec->world = world;
    codec->live = live;
    if (live)
        ++*live;
    return codec;
}

/* ---- Custom transports whose bytes travel as those of other transports ---- */

struct passage {
    tram_protocol outer; /* of the transport below */
    struct channel *channel;
    tram_transport *inner; /* NULL: it ended */
    struct kept kept;      /* came while the inner one did not read */
    size_t unsent;         /* bytes that wait below */
    bool eof;              /* the stream below has ended, which the inner one was not told */
    bool aborts;
    unsigned holds; /* the two */
};

static void passage_release(struct passage *passage) {
    if (--passage->holds)
        return;
    passage->channel->below--;
    free(passage->kept.bytes);
    free(passage);
}

/* What there is, to the inner one, as long as it reads. */
static void pass_up(struct passage *passage) {
    struct kept *kept = &passage->kept;
    while (passage->inner && kept->size) {
        size_t taken = tram_custom_received(passage->inner, kept->bytes, kept->size);
        kept->size -= taken;
        memmove(kept->bytes, kept->bytes + taken, kept->size);
        if (!taken)
            return;
    }
    if (passage->inner && passage->eof)
        passage->eof = !tram_custom_eof(passage->inner);
}

static int outer_received(tram_protocol *protocol, const void *data, size_t size) {
    struct passage *passage = (struct passage *)protocol;
    size_t taken = passage->inner && !passage->kept.size ? tram_custom_received(passage->inner, data, size) : 0;
    if (taken == size || !passage->inner)
        return 0;
    kept_add(&passage->kept, (const char *)data + taken, size - taken);
    return 0;
}

static int outer_eof(tram_protocol *protocol) {
    struct passage *passage = (struct passage *)protocol;
    passage->eof = true;
    pass_up(passage);
    return 1; /* it is the inner one that closes */
}

static int outer_resume_writing(tram_protocol *protocol) {
    struct passage *passage = (struct passage *)protocol;
    size_t sent = passage->unsent;
    passage->unsent = 0;
    if (passage->inner)
        tram_custom_sent(passage->inner, sent);
    return 0;
}

static int outer_lost(tram_protocol *protocol, const tram_error *error) {
    struct passage *passage = (struct passage *)protocol;
    if (passage->inner)
        tram_custom_lost(passage->inner, error);
    return 0;
}

static void outer_released(tram_protocol *protocol) {
    passage_release((struct passage *)protocol);
}

static const tram_protocol_ops outer_ops = {.data_received = outer_received,
                                            .eof_received = outer_eof,
                                            .resume_writing = outer_resume_writing,
                                            .connection_lost = outer_lost,
                                            .released = outer_released};

static int inner_writelines(tram_transport *transport, void *state, const struct iovec *pieces, size_t count) {
    struct passage *passage = state;
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += pieces[i].iov_len;
    int status = tram_transport_writelines(passage->outer.transport, pieces, count);
    if (!status && tram_transport_get_write_buffer_size(passage->outer.transport) > 0)
        passage->unsent += size;
    else
        tram_custom_sent(transport, size);
    return status;
}

static int inner_write_eof(tram_transport *transport, void *state) {
    (void)transport;
    return tram_transport_write_eof(((struct passage *)state)->outer.transport);
}

static int inner_pause(tram_transport *transport, void *state) {
    (void)transport;
    return tram_transport_pause_reading(((struct passage *)state)->outer.transport);
}

static int deliver_kept(tram_loop *loop, void *arg) {
    (void)loop;
    struct passage *passage = arg;
    pass_up(passage);
    passage_release(passage);
    return 0;
}

static void discard_kept(void *arg) {
    passage_release(arg);
}

static int inner_resume(tram_transport *transport, void *state) {
    struct passage *passage = state;
    if (passage->kept.size || passage->eof) {
        passage->holds++;
        tram_loop *loop = tram_transport_get_loop(transport);
        assert_int_equal(tram_loop_call_soon(loop, deliver_kept, passage, discard_kept, NULL), 0);
    }
    return tram_transport_resume_reading(passage->outer.transport);
}

static void inner_abort(tram_transport *transport, void *state) {
    (void)transport;
    ((struct passage *)state)->aborts = true;
}

static void inner_ended(tram_transport *transport, void *state) {
    (void)transport;
    struct passage *passage = state;
    passage->inner = NULL;
    if (passage->outer.transport && passage->aborts)
        tram_transport_abort(passage->outer.transport);
    else if (passage->outer.transport)
        tram_transport_close(passage->outer.transport);
    passage_release(passage);
}

static const tram_custom_ops inner_ops = {.writelines = inner_writelines,
                                          .write_eof = inner_write_eof,
                                          .pause_reading = inner_pause,
                                          .resume_reading = inner_resume,
                                          .abort = inner_abort,
                                          .ended = inner_ended,
                                          .sendfile_mode = TRAM_SENDFILE_FALLBACK,
                                          .start_tls_compatible = true};

static bool outer_is_made(void *arg) {
    const struct passage *const *passages = arg;
    return passages[0]->outer.transport && passages[1]->outer.transport;
}

/* Two transports over Unix sockets that are open, and two custom ones over them. */
static void open_passages(struct channel *channel, bool layered) {
    struct passage *passages[2];
    tram_transport *transport;
    int fds[2];
    unix_pair(fds);
    for (int i = 0; i < 2; i++) {
        passages[i] = calloc(1, sizeof *passages[i]);
        assert_non_null(passages[i]);
        *passages[i] = (struct passage){.outer.ops = &outer_ops, .channel = channel, .holds = 2};
        channel->below++;
        /* Little of what is written is out of sight at once. */
        assert_int_equal(setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &(int){1}, sizeof(int)), 0);
        assert_int_equal(transport_try_new(channel->world, fds[i], &passages[i]->outer, NULL, &transport), 0);
        if (layered) {
            struct codec *codec = codec_new(channel->world, &codec_kind, &channel->below);
            assert_int_equal(tram__transport_push_layer(transport, &codec->layer, NULL, 0), 0);
        }
    }
    run_until_true(channel->world, outer_is_made, passages);
    for (int i = 0; i < 2; i++) {
        transport = passages[i]->outer.transport;
        assert_int_equal(tram_transport_set_write_buffer_limits(transport, 0, 0), 0);
        assert_int_equal(tram_transport_pause_reading(transport), 0); /* until the inner one reads */
        assert_int_equal(tram_loop_create_custom(channel->world->loop, &inner_ops, passages[i],
                                                 i ? &channel->b->base : &channel->a->base, &passages[i]->inner),
                         0);
    }
    channel->first = passages[0]->inner;
    channel->second = passages[1]->inner;
}

/* ---- Connections ---- */

void channel_open_bare(struct channel *channel, struct world *world, enum carrier carrier, struct recorder *a,
                       struct recorder *b) {
    int fds[2];
    *channel = (struct channel){.world = world, .carrier = carrier, .a = a, .b = b};
    a->keep = b->keep = true;
    if (carrier == CARRIER_PAIR) {
        assert_int_equal(tram_loop_create_pair(world->loop, &a->base, &b->base, &channel->first, &channel->second), 0);
        return;
    }
    if (!carrier_is_socket(carrier)) {
        open_passages(channel, carrier == CARRIER_TUNNEL);
        return;
    }
    (carrier == CARRIER_TCP ? tcp_pair : unix_pair)(fds);
    channel->first = transport_new(world, fds[0], a);
    channel->second = transport_new(world, fds[1], b);
}

static struct codec *push(struct channel *channel, tram_transport *transport, const struct layer_kind *kind) {
    struct codec *codec = codec_new(channel->world, kind, &channel->live);
    codec->layer.start_timeout_ns = 20000000000u;
    codec->layer.shutdown_timeout_ns = 20000000000u;
    assert_int_equal(tram__transport_push_layer(transport, &codec->layer, NULL, 0), 0);
    return codec;
}

void channel_open(struct channel *channel, struct world *world, enum carrier carrier, unsigned depth,
                  const struct layer_kind *kind) {
    channel_open_bare(channel, world, carrier, recorder_new(world, "a"), recorder_new(world, "b"));
    channel->depth = depth;
    for (unsigned i = 0; i < depth; i++) {
        channel->first_codec = push(channel, channel->first, kind);
        channel->second_codec = push(channel, channel->second, kind);
    }
}

static void push_codecs(struct channel *channel) {
    channel->first_codec = push(channel, channel->first, &codec_kind);
    channel->second_codec = push(channel, channel->second, &codec_kind);
}

void (*channel_overlay)(struct channel *channel) = push_codecs;

void channel_begin(struct channel *channel, struct world *world, enum carrier carrier, unsigned depth) {
    channel_open_bare(channel, world, carrier, recorder_new(world, "a"), recorder_new(world, "b"));
    channel->depth = depth;
    for (unsigned i = 0; i < depth; i++)
        channel_overlay(channel);
}

static bool both_made(void *arg) {
    const struct channel *channel = arg;
    return channel->a->made && channel->b->made;
}

void channel_open_made(struct channel *channel, struct world *world, enum carrier carrier, unsigned depth) {
    channel_begin(channel, world, carrier, depth);
    run_until_true(world, both_made, channel);
    run_to_rest(world);
    world->trace[0] = '\0';
}

static bool both_released(void *arg) {
    const struct channel *channel = arg;
    return channel->a->was_released && channel->b->was_released && !channel->below;
}

void channel_close(struct channel *channel) {
    if (!channel->a->was_released && channel->a->base.transport)
        tram_transport_abort(channel->a->base.transport);
    if (!channel->b->was_released && channel->b->base.transport)
        tram_transport_abort(channel->b->base.transport);
    run_until_true(channel->world, both_released, channel);
    run_to_rest(channel->world);
    assert_int_equal(channel->live, 0);
    channel->world->trace[0] = '\0';
}

struct awaited {
    const struct recorder *recorder;
    size_t size;
};

static bool has_come(void *arg) {
    const struct awaited *awaited = arg;
    return awaited->recorder->received >= awaited->size;
}

void await_pattern(struct channel *channel, struct recorder *recorder, size_t size) {
    struct awaited awaited = {.recorder = recorder, .size = size};
    run_until_true(channel->world, has_come, &awaited);
    assert_int_equal(recorder->received, size);
    assert_pattern(recorder->bytes, recorder->kept < 60000 ? recorder->kept : 60000, 0);
}
