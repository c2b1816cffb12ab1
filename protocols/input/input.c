/*
 * An input: bytes come, the parser is called, what it left is kept.
 *
 * Reading order: tram_input_feed(), and run_parser() that it calls; tram_input_resume() for what comes later; what
 * pauses the transport stands between them.
 */
#include "protocols/input/input.h"

#include <errno.h>
#include <string.h>

#include "core/base/invalid.h"
#include "core/base/memory.h"
#include "core/loop/loop.h"
#include "core/loop/raised.h"
#include "core/loop/report.h"
#include <tram/transport.h>

#define LIMIT_DEFAULT 65536u
#define LIMIT_MAX     (SIZE_MAX / 4) /* so that sums of limits and lengths are sizes */

int tram_input_init(tram_input *input, const tram_input_options *options) {
    static const tram_input_options defaults;
    if (!options)
        options = &defaults;
    if (reserved_used(options))
        return tram__invalid("reserved");
    size_t limit = options->limit ? options->limit : LIMIT_DEFAULT;
    *input = (tram_input){
        .limit = MIN(limit, LIMIT_MAX),
        .allocator = options->loop ? options->loop->allocator : tram__memory_default,
        .protocol = options->protocol,
        .parse = options->parse,
    };
    return 0;
}

static tram_transport *transport_of(const tram_input *input) {
    return input->protocol ? input->protocol->transport : NULL;
}

static void cancel_resumed(tram_input *input) {
    if (input->resumed_loop)
        tram_handle_cancel(input->resumed_loop, input->resumed);
    input->resumed_loop = NULL;
}

void tram_input_fini(tram_input *input) {
    cancel_resumed(input);
    tram__input_free(input);
    *input = (tram_input){.flags = INPUT_EOF};
}

bool tram_input_at_eof(const tram_input *input) {
    return input->flags & INPUT_EOF && !tram_input_size(input);
}

size_t tram_input_size(const tram_input *input) {
    return (size_t)(input_end(input) - input->at);
}

/* ---- Reading slower ---- */

static void hold_reading(tram_input *input) {
    tram_transport *transport = transport_of(input);
    bool wanted = input->parse && input->flags & INPUT_LACKING && !(input->flags & INPUT_PAUSED);
    if (!transport || wanted || tram_input_size(input) <= 2 * input->limit || input->flags & INPUT_HOLDS_READING)
        return;
    if (!tram_transport_pause_reading(transport))
        input->flags |= INPUT_HOLDS_READING;
}

static void let_read(tram_input *input) {
    tram_transport *transport = transport_of(input);
    if (likely(!(input->flags & INPUT_HOLDS_READING)))
        return;
    input->flags &= ~(uint32_t)INPUT_HOLDS_READING;
    if (transport)
        tram_transport_resume_reading(transport);
}

/* ---- What stands before and behind each call that takes ---- */

int tram__input_enter(tram_input *input) {
    const tram_transport *transport = transport_of(input);
    if (unlikely(input->flags & INPUT_BROKEN))
        return -ENOMEM;
    if (unlikely(input->flags & INPUT_PAUSED)) {
        input->flags |= INPUT_REFUSED;
        return -EAGAIN;
    }
    return transport && unlikely(tram_transport_is_closing(transport)) ? -EAGAIN : 0;
}

static uint64_t message_begin(const tram_input *input) {
    return input->flags & INPUT_MARKED ? input->mark : input->at;
}

int tram__input_lacks(tram_input *input, size_t size) {
    if (input->flags & INPUT_EOF)
        return input_end(input) == message_begin(input) ? -EAGAIN : TRAM_EINCOMPLETE;
    input->needed = input->at + size;
    input->flags |= INPUT_LACKING;
    let_read(input);
    return -EAGAIN;
}

bool tram__input_over_limit(const tram_input *input, uint64_t size) {
    uint64_t before = input->at - message_begin(input);
    return before > input->limit || size > input->limit - before;
}

void tram__input_advance(tram_input *input, size_t size) {
    input->at += size;
    input->needed = 0;
    input->flags &= ~(uint32_t)INPUT_LACKING;
    if (unlikely(input->flags & INPUT_HOLDS_READING) && tram_input_size(input) <= input->limit)
        let_read(input);
}

void tram_input_mark(tram_input *input) {
    input->mark = input->at;
    input->flags |= INPUT_MARKED;
}

void tram_input_rewind(tram_input *input) {
    if (input->flags & INPUT_MARKED)
        input->at = input->mark;
}

/* ---- The parser ---- */

static bool is_due(const tram_input *input) {
    if (!input->parse || input->flags & (INPUT_PAUSED | INPUT_BROKEN))
        return false;
    return input->flags & INPUT_EOF || (tram_input_size(input) && input_end(input) >= input->needed);
}

/* 0 or its failure. */
static int run_parser(tram_input *input) {
    input->flags &= ~(uint32_t)(INPUT_REFUSED | INPUT_LACKING | INPUT_MARKED);
    input->flags |= INPUT_PARSING;
    input->needed = 0;
    int status = input->parse(input->protocol, input);
    input->flags &= ~(uint32_t)(INPUT_PARSING | INPUT_MARKED);
    return status < 0 && status != -EAGAIN ? status : 0;
}

static int parse_later(tram_input *input);

/* Everything that came was parsed, and nobody wants the parser to wait. */
static bool is_done(const tram_input *input) {
    return !(input->flags & (INPUT_PARSING | INPUT_PAUSED)) && !tram_input_size(input);
}

/* Parses, keeps the rest. The parser may have paused, been refused something, and resumed. */
static int parse_and_keep(tram_input *input) {
    int status = is_due(input) ? run_parser(input) : 0;
    int kept = tram__input_keep(input);
    if (!status)
        status = kept;
    if (status)
        return status;
    if (unlikely(input->flags & INPUT_ENDING) && is_done(input) && transport_of(input))
        return tram_transport_close(transport_of(input));
    hold_reading(input);
    bool again = input->flags & INPUT_REFUSED && !(input->flags & INPUT_PAUSED);
    return unlikely(again) ? parse_later(input) : 0;
}

/* ---- Later ---- */

/* As protocol_adapter.c judges a failing data_received (P-15, T-17). */
static void parser_failed(tram_transport *transport, int status) {
    tram_loop *loop = tram_transport_get_loop(transport);
    const tram_error *error = tram__raised(loop, status, "parse");
    if (status < -4096) {
        tram_exception exception = {
            .message = "a parser failed",
            .error = error,
            .transport = transport,
            .protocol = tram_transport_get_protocol(transport),
            .fd = -1,
        };
        tram__report(loop, &exception);
    }
    tram_transport_abort_with_error(transport, error);
}

static int parse_resumed(tram_loop *loop, void *arg) {
    (void)loop;
    tram_input *input = arg;
    input->resumed_loop = NULL;
    tram_transport *transport = transport_of(input);
    if (!transport || tram_transport_is_closing(transport))
        return 0;
    int status = parse_and_keep(input);
    if (status < 0)
        parser_failed(transport, status);
    else if (input->flags & INPUT_CLOSES && !(input->flags & (INPUT_PAUSED | INPUT_REFUSED)))
        tram_transport_close(transport);
    return 0;
}

static void resumed_discarded(void *arg) {
    ((tram_input *)arg)->resumed_loop = NULL;
}

/* On a connection by the loop, without one at once; after its end never. */
static int parse_later(tram_input *input) {
    tram_transport *transport = transport_of(input);
    bool wanted = is_due(input) || (input->flags & INPUT_ENDING && is_done(input));
    if (!wanted || (!transport && input->flags & INPUT_CONNECTED))
        return 0;
    if (!transport)
        return parse_and_keep(input);
    tram_loop *loop = tram_transport_get_loop(transport);
    cancel_resumed(input);
    int status = tram_loop_call_soon(loop, parse_resumed, input, resumed_discarded, &input->resumed);
    input->resumed_loop = status ? NULL : loop;
    return status;
}

void tram_input_pause(tram_input *input) {
    input->pauses++;
    input->flags |= INPUT_PAUSED;
}

bool tram_input_is_paused(const tram_input *input) {
    return input->flags & INPUT_PAUSED;
}

int tram_input_resume(tram_input *input) {
    if (!input->pauses || --input->pauses)
        return 0;
    input->flags &= ~(uint32_t)INPUT_PAUSED;
    if (input->flags & INPUT_PARSING)
        return 0; /* parse_and_keep() looks */
    input->needed = 0;
    return parse_later(input);
}

/* ---- Bytes come ---- */

int tram_input_feed(tram_input *input, const void *data, size_t size) {
    if (unlikely(input->flags & (INPUT_PARSING | INPUT_EOF | INPUT_BROKEN)))
        return input->flags & INPUT_BROKEN ? -ENOMEM : TRAM_ESTATE;
    if (unlikely(!data && size))
        return tram__invalid("data");
    input->flags &= ~(uint32_t)INPUT_MARKED;
    if (transport_of(input))
        input->flags |= INPUT_CONNECTED;
    input->borrowed = data;
    input->borrowed_size = size;
    return parse_and_keep(input);
}

int tram_input_feed_eof(tram_input *input) {
    if (unlikely(input->flags & (INPUT_PARSING | INPUT_EOF)))
        return TRAM_ESTATE;
    input->flags |= INPUT_EOF;
    if (input->flags & INPUT_BROKEN)
        return -ENOMEM;
    int status = parse_and_keep(input);
    if (status < 0 || !(input->flags & INPUT_PAUSED))
        return status;
    input->flags |= INPUT_CLOSES;
    return 1;
}

int tram_input_end(tram_input *input) {
    tram_transport *transport = transport_of(input);
    input->flags |= INPUT_ENDING;
    return transport && is_done(input) ? tram_transport_close(transport) : 0;
}

/* ---- The callbacks of a protocol with an input ---- */

/* How its struct begins. */
struct input_protocol {
    tram_protocol base;
    tram_input input;
};

static tram_input *input_of(tram_protocol *protocol) {
    return &((struct input_protocol *)protocol)->input;
}

int tram_input_data_received(tram_protocol *protocol, const void *data, size_t size) {
    return tram_input_feed(input_of(protocol), data, size);
}

int tram_input_eof_received(tram_protocol *protocol) {
    return tram_input_feed_eof(input_of(protocol));
}

int tram_input_pause_writing(tram_protocol *protocol) {
    tram_input_pause(input_of(protocol));
    return 0;
}

int tram_input_resume_writing(tram_protocol *protocol) {
    return tram_input_resume(input_of(protocol));
}

int tram_input_closing(tram_protocol *protocol, uint64_t deadline_ns) {
    (void)deadline_ns;
    return tram_input_end(input_of(protocol));
}
